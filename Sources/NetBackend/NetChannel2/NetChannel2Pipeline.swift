// Pure steps of netchannel2's two directions: the words of its packets to those of a TAP device and back.

internal import HostNetwork
internal import NetChannel2
internal import SharedRing
internal import XenWire

enum NetChannel2Pipeline {
    /// What to tell the host about a packet of the frontend, which lies whole in private memory.
    ///
    /// Where its checksum is, is found in its own headers; what the frontend says of that is not needed.
    static func transmit(_ packet: NetChannel2Packet, _ bytes: Slot) throws(OffloadFault) -> VirtioNetHeader {
        var flags: TransmitFlags = []
        if packet.flags.contains(.checksumBlank) { flags.insert(.checksumBlank) }
        if packet.flags.contains(.dataValidated) { flags.insert(.dataValidated) }
        let headers = PacketHeaders(parsing: bytes, count: bytes.byteCount)
        let offload = try TransmitOffload(
            flags: flags,
            segmentation: Segmentation(kind: .tcpv4, size: packet.segmentSize),
            headers: headers,
            byteCount: bytes.byteCount
        )
        if offload.makesBlank { InternetChecksum.makeBlank(bytes, headers: headers, count: bytes.byteCount) }
        return offload.header
    }

    /// What to tell the frontend about a packet of the host; a blank checksum that it does not take is filled in.
    ///
    /// Unlike `vif`, a packet says where its checksum is, so tags before the headers make no difference.
    /// - Parameter bytes: all of it, from the destination address on.
    /// - Returns: nil for a packet in a form that the frontend does not take, or that contradicts itself.
    static func receive(
        _ header: VirtioNetHeader,
        _ bytes: Slot,
        at offset: Int,
        takes offloads: NetChannel2Offloads
    ) -> NetChannel2Outgoing? {
        guard bytes.byteCount >= NetChannel2Wire.minPacket else { return nil }
        var packet = NetChannel2Outgoing(offset: offset, byteCount: bytes.byteCount)
        guard header.needsHeaders else {
            if header.flags.contains(.dataValid) { packet.flags = .dataValidated }
            return packet
        }
        let start = Int(header.checksumStart)
        let field = start &+ Int(header.checksumOffset)
        guard header.flags.contains(.needsChecksum), field &+ 2 <= bytes.byteCount else { return nil }
        if header.segmentKind != .none {
            guard header.segmentKind.withoutECN == .tcpv4, header.segmentSize > 0,
                offloads.isSuperset(of: [.checksum, .segmentationV4])
            else { return nil }
            packet.segmentSize = header.segmentSize
        }
        guard offloads.contains(.checksum) else {
            InternetChecksum.complete(bytes, start: start, field: field, count: bytes.byteCount)
            return packet
        }
        packet.flags = [.checksumBlank, .dataValidated]
        packet.checksumStart = UInt16(truncatingIfNeeded: start)
        packet.checksumOffset = UInt16(truncatingIfNeeded: field)
        return packet
    }

    /// What the host may leave undone in packets for a frontend that takes this.
    static func offloads(_ offloads: NetChannel2Offloads) -> PacketOffloads {
        guard offloads.contains(.checksum) else { return [] }
        return offloads.contains(.segmentationV4) ? [.checksum, .segmentationV4] : .checksum
    }
}
