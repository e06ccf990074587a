// The checksum of IP, TCP and UDP (RFC 1071), over private bytes.

/// A sum under way. Numbers are kept as they lie in memory: a one's complement sum is the same in either byte order, and
/// only the result's place on the wire decides (RFC 1071, 2 B).
public struct InternetChecksum: Sendable {
    // The lower and the upper half of each 64-bit word: neither can overflow below 2³² words.
    @usableFromInline var low: UInt64 = 0
    @usableFromInline var high: UInt64 = 0

    @inlinable public init() {}

    /// Adds bytes; all but the last run must be of even length.
    @inlinable
    public mutating func add(_ bytes: some WireBytes, at offset: Int, count: Int) {
        var (low, high) = (self.low, self.high)
        bytes.forEachU64(offset, count: count &>> 3) { word in
            low &+= word & 0xFFFF_FFFF
            high &+= word &>> 32
        }
        var place = offset &+ (count & ~7)
        if count & 4 != 0 {
            low &+= UInt64(bytes.u32(place))
            place &+= 4
        }
        if count & 2 != 0 {
            low &+= UInt64(bytes.u16(place))
            place &+= 2
        }
        if count & 1 != 0 { low &+= UInt64(bytes.u8(place)) }
        (self.low, self.high) = (low, high)
    }

    /// Adds a 16-bit number, which goes over the wire with its upper byte first.
    @inlinable public mutating func add(_ number: UInt16) { low &+= UInt64(number.byteSwapped) }

    /// The sum, as `set16` writes it; not complemented.
    @inlinable public var sum: UInt16 {
        var sum = (low & 0xFFFF_FFFF) &+ (low &>> 32) &+ (high & 0xFFFF_FFFF) &+ (high &>> 32)
        sum = (sum & 0xFFFF) &+ (sum &>> 16)
        sum = (sum & 0xFFFF) &+ (sum &>> 16)
        sum = (sum & 0xFFFF) &+ (sum &>> 16)
        return UInt16(truncatingIfNeeded: sum)
    }

    /// What stands in a header's field, as `set16` writes it. Never 0, which in UDP means "no checksum" and otherwise
    /// says the same as 0xFFFF (RFC 768).
    @inlinable public var field: UInt16 { sum == 0xFFFF ? 0xFFFF : ~sum }
}

extension InternetChecksum {
    /// The pseudo header of TCP or UDP (RFC 9293, 3.1; RFC 8200, 8.1).
    /// - Parameter length: bytes of the transport's header and data.
    @inlinable
    public init(pseudoHeaderOf headers: PacketHeaders, in bytes: some WireBytes, length: Int) {
        switch headers.network {
        case .none: break
        case .ipv4: add(bytes, at: headers.networkOffset &+ 12, count: 8)
        case .ipv6: add(bytes, at: headers.networkOffset &+ 8, count: 32)
        }
        add(UInt16(headers.transportProtocol))
        add(UInt16(truncatingIfNeeded: length))
        add(UInt16(truncatingIfNeeded: length &>> 16))
    }

    /// Replaces the sum of the pseudo header that stands in a blank field by the checksum.
    /// - Parameters:
    ///   - start: the first byte that is summed; the last is the packet's last, at `count` − 1.
    ///   - field: where the two bytes stand; `start ≤ field` and `field + 2 ≤ count` (checked by the caller).
    @inlinable
    public static func complete(_ packet: some WritableWireBytes, start: Int, field: Int, count: Int) {
        precondition(start >= 0 && start <= field && field &+ 2 <= count)
        var checksum = InternetChecksum()
        checksum.add(packet, at: start, count: count &- start)
        packet.set16(checksum.field, at: field)
    }

    /// Makes the field of TCP or UDP blank: the sum of the pseudo header, for a packet of `count` bytes that somebody else
    /// will cut into segments or complete. Does nothing without either protocol.
    @inlinable
    public static func makeBlank(_ packet: some WritableWireBytes, headers: PacketHeaders, count: Int) {
        guard let field = headers.checksumField else { return }
        let length = count &- headers.transportOffset
        packet.set16(InternetChecksum(pseudoHeaderOf: headers, in: packet, length: length).sum, at: field)
    }

    /// Writes the checksum of TCP or UDP, whatever stood there. Does nothing without either protocol.
    @inlinable
    public static func fill(_ packet: some WritableWireBytes, headers: PacketHeaders, count: Int) {
        guard let field = headers.checksumField else { return }
        packet.set16(0, at: field)
        packet.set16(transport(packet, headers, count).field, at: field)
    }

    /// Whether the checksum of TCP or UDP is right. true for packets with neither, and for UDP over IPv4 without one.
    @inlinable
    public static func isRight(_ packet: some WireBytes, headers: PacketHeaders, count: Int) -> Bool {
        guard let field = headers.checksumField else { return true }
        if headers.transport == .udp, headers.network == .ipv4, packet.u16(field) == 0 { return true }
        return transport(packet, headers, count).sum == 0xFFFF
    }

    /// Header, data and pseudo header of the transport, without what pads the frame behind them.
    @inlinable
    static func transport(_ packet: some WireBytes, _ headers: PacketHeaders, _ count: Int) -> InternetChecksum {
        let present = count &- headers.transportOffset
        let start = headers.networkOffset
        let declared: Int
        switch headers.network {
        case .none: declared = present
        case .ipv4: declared = start &+ Int(packet.u16(start &+ 2).byteSwapped) &- headers.transportOffset
        case .ipv6: declared = start &+ 40 &+ Int(packet.u16(start &+ 4).byteSwapped) &- headers.transportOffset
        }
        let isSane = declared >= headers.headerEnd &- headers.transportOffset && declared <= present
        let length = isSane ? declared : present
        var checksum = InternetChecksum(pseudoHeaderOf: headers, in: packet, length: length)
        checksum.add(packet, at: headers.transportOffset, count: length)
        return checksum
    }
}
