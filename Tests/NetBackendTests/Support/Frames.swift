// Frames to send: what a guest's or a host's network stack would make.

internal import FrontendDrivers
internal import SharedRing
internal import XenWire

enum Frames {
    /// Bytes of Ethernet, IPv4 or IPv6, and TCP headers.
    static let headersV4 = 54
    static let headersV6 = 74

    /// Of a protocol that nobody looks into; at least 14 bytes.
    static func plain(_ byteCount: Int, seed: Int = 0) -> [UInt8] {
        var bytes = (0..<byteCount).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8 &+ seed &* 7) }
        put(hostAddress, guestAddress, 0x88B5, &bytes)
        return bytes
    }

    /// UDP over IPv4 with a right checksum, or a blank one; at least 62 bytes.
    static func udp(_ byteCount: Int, number: UInt64 = 0, flow: UInt8 = 0, blank: Bool = false) -> [UInt8] {
        edit([UInt8](repeating: 0, count: byteCount)) { slot in
            stream(flow).write(number, blank: blank, into: slot)
        }
    }

    static func stream(_ flow: UInt8 = 0) -> NetworkStream {
        NetworkStream(from: guestAddress, to: hostAddress, flow: flow)
    }

    /// TCP with this many bytes after the headers.
    static func tcp(_ payload: Int, isV6: Bool = false, blank: Bool = true, port: UInt16 = 5001) -> [UInt8] {
        let headers = isV6 ? headersV6 : headersV4
        var bytes = (0..<headers + payload).map { UInt8(truncatingIfNeeded: $0 &* 13 &+ $0 >> 8) }
        put(hostAddress, guestAddress, isV6 ? 0x86DD : 0x0800, &bytes)
        let ip: [UInt8]
        if isV6 {
            let length = UInt16(clamping: 20 + payload)
            ip = [0x60, 0, 0, 0, UInt8(length >> 8), UInt8(length & 255), 6, 64] + address6(1) + address6(2)
        } else {
            let length = UInt16(clamping: 40 + payload)
            ip = [0x45, 0, UInt8(length >> 8), UInt8(length & 255), 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]
        }
        bytes.replaceSubrange(14..<14 + ip.count, with: ip)
        let tcp: [UInt8] = [
            UInt8(port >> 8), UInt8(port & 255), 0x30, 0x39, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 1, 0, 0, 0, 0, 0,
        ]
        bytes.replaceSubrange(headers - 20..<headers, with: tcp)
        return edit(bytes) { slot in
            let parsed = PacketHeaders(parsing: slot, count: slot.byteCount)
            if blank {
                InternetChecksum.makeBlank(slot, headers: parsed, count: slot.byteCount)
            } else {
                InternetChecksum.fill(slot, headers: parsed, count: slot.byteCount)
            }
        }
    }

    /// What a TAP says of such a packet that is to be segmented, or only summed.
    static func header(_ frame: [UInt8], segmentSize: UInt16 = 0) -> VirtioNetHeader {
        var header = VirtioNetHeader()
        _ = edit(frame) { slot in
            let parsed = PacketHeaders(parsing: slot, count: slot.byteCount)
            header.flags = .needsChecksum
            header.checksumStart = UInt16(parsed.transportOffset)
            header.checksumOffset = parsed.transport == .tcp ? 16 : 6
            header.headerLength = UInt16(parsed.headerEnd)
            if segmentSize > 0 {
                header.segmentKind = parsed.network == .ipv4 ? .tcpv4 : .tcpv6
                header.segmentSize = segmentSize
            }
        }
        return header
    }

    static func hasRightChecksum(_ frame: [UInt8]) -> Bool {
        var isRight = false
        _ = edit(frame) { slot in
            let parsed = PacketHeaders(parsing: slot, count: slot.byteCount)
            isRight =
                parsed.checksumField != nil && InternetChecksum.isRight(slot, headers: parsed, count: slot.byteCount)
        }
        return isRight
    }

    static func edit(_ bytes: [UInt8], _ body: (Slot) -> Void) -> [UInt8] {
        guard let pages = try? PrivatePages(byteCount: bytes.count) else { return [] }
        pages.write(bytes, at: 0)
        let slot = pages.slot(at: 0, byteCount: bytes.count)
        body(slot)
        return (0..<bytes.count).map { slot.u8($0) }
    }

    /// The six octets.
    static func octets(_ address: MACAddress) -> [UInt8] {
        (0..<6).map { UInt8(truncatingIfNeeded: address.rawValue >> UInt64(8 * $0)) }
    }

    private static func address6(_ last: UInt8) -> [UInt8] { [0xFD] + [UInt8](repeating: 0, count: 14) + [last] }

    private static func put(_ to: MACAddress, _ from: MACAddress, _ type: UInt16, _ bytes: inout [UInt8]) {
        let head = octets(to) + octets(from) + [UInt8(type >> 8), UInt8(type & 255)]
        bytes.replaceSubrange(0..<14, with: head)
    }
}
