// The packets that are measured.

internal import FrontendDrivers
internal import SharedRing
internal import XenWire

/// One kind of packet, with its checksum left to the other end, as Linux sends it.
enum NetShape: CaseIterable {
    case small, full, large

    var name: String {
        switch self {
        case .small: "64 B"
        case .full: "1514 B"
        case .large: "GSO 64 KiB"
        }
    }

    /// Bytes of the frame.
    var byteCount: Int {
        switch self {
        case .small: 64
        case .full: 1514
        case .large: 65_014
        }
    }

    /// Packets of one turn: as many as one batch carries, or a socket of any user holds.
    var batch: Int { self == .large ? 4 : 64 }
    var segmentation: Segmentation? { self == .large ? Segmentation(kind: .tcpv4, size: 1448) : nil }
    var pageCount: Int { (byteCount + SharedPages.pageSize - 1) / SharedPages.pageSize }
    var slotCount: Int { pageCount + (segmentation == nil ? 0 : 1) }

    /// Writes the frame: UDP, or for the large one TCP.
    func write(into frame: Slot) {
        let addresses = (MACAddress(0x00, 0x16, 0x3E, 0, 0, 1), MACAddress(0x00, 0x16, 0x3E, 0, 0, 2))
        NetworkStream(from: addresses.0, to: addresses.1).write(7, blank: true, into: frame)
        guard self == .large else { return }
        frame.set8(6, at: 23)
        frame.set16(0, at: 24)
        var checksum = InternetChecksum()
        checksum.add(frame, at: 14, count: 20)
        frame.set16(checksum.field, at: 24)
        // Twenty bytes of TCP header.
        frame.set8(0x50, at: 46)
        InternetChecksum.makeBlank(
            frame,
            headers: PacketHeaders(parsing: frame, count: byteCount),
            count: byteCount
        )
    }

    /// The header that a TAP puts in front of it.
    var header: VirtioNetHeader {
        var header = VirtioNetHeader()
        header.flags = .needsChecksum
        header.checksumStart = 34
        header.checksumOffset = self == .large ? 16 : 6
        header.headerLength = self == .large ? 54 : 42
        if let segmentation {
            header.segmentKind = .tcpv4
            header.segmentSize = segmentation.size
        }
        return header
    }
}
