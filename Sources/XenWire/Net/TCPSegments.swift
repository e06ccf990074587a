// Segmentation of TCP packets for receivers that do not accept large ones (Linux's tcp_gso_segment).

/// How one packet becomes several: each has the headers of the whole, changed, and a part of its data.
public struct TCPSegments: Hashable, Sendable {
    public let headers: PacketHeaders
    /// Bytes of data in each but the last.
    public let size: Int
    /// Bytes of data in all.
    public let dataBytes: Int

    /// - Parameters:
    ///   - headers: parsed from all its `byteCount` bytes.
    ///   - size: bytes of data in a segment.
    /// - Returns: nil if it is no TCP, or the size is 0.
    @inlinable
    public init?(headers: PacketHeaders, size: UInt16, byteCount: Int) {
        guard headers.transport == .tcp, size > 0, byteCount >= headers.headerEnd else { return nil }
        self.headers = headers
        self.size = Int(size)
        dataBytes = byteCount &- headers.headerEnd
    }

    /// Segments; one if there is no data.
    @inlinable public var count: Int { max(1, (dataBytes &+ size &- 1) / size) }
    /// Bytes that begin each.
    @inlinable public var headerBytes: Int { headers.headerEnd }
    /// Where the data of segment `index` begin in the whole packet.
    @inlinable public func offset(_ index: Int) -> Int { headers.headerEnd &+ index &* size }
    /// Bytes of data in segment `index` (0 ..< `count`).
    @inlinable public func length(_ index: Int) -> Int { min(size, dataBytes &- index &* size) }

    /// Makes segment `index` right: lengths, IPv4's number, TCP's sequence number and flags, all checksums.
    /// - Parameter packet: the whole packet's headers and this segment's data; `headerBytes + length(index)` bytes of it
    ///   are looked at.
    @inlinable
    public func finish(_ index: Int, _ packet: some WritableWireBytes) {
        let (network, transport) = (headers.networkOffset, headers.transportOffset)
        let count = headerBytes &+ length(index)
        switch headers.network {
        case .ipv4:
            packet.set16(UInt16(truncatingIfNeeded: count &- network).byteSwapped, at: network &+ 2)
            let number = packet.u16(network &+ 4).byteSwapped &+ UInt16(truncatingIfNeeded: index)
            packet.set16(number.byteSwapped, at: network &+ 4)
            packet.set16(0, at: network &+ 10)
            var checksum = InternetChecksum()
            checksum.add(packet, at: network, count: transport &- network)
            packet.set16(checksum.field, at: network &+ 10)
        case .ipv6:
            packet.set16(UInt16(truncatingIfNeeded: count &- network &- 40).byteSwapped, at: network &+ 4)
        case .none: break
        }
        let sequence = packet.u32(transport &+ 4).byteSwapped &+ UInt32(truncatingIfNeeded: index &* size)
        packet.set32(sequence.byteSwapped, at: transport &+ 4)
        var flags = packet.u8(transport &+ 13)
        // FIN and PSH belong to the last byte, CWR to the first segment (RFC 3168, 6.1.2).
        if index &+ 1 < self.count { flags &= ~0x09 }
        if index > 0 { flags &= ~0x80 }
        packet.set8(flags, at: transport &+ 13)
        InternetChecksum.fill(packet, headers: headers, count: count)
    }
}
