// Where the headers of an Ethernet frame lie, as far as checksums, segmentation and hashes need them.

/// Why the headers of a packet were not followed to their end. Such a packet is carried as it is, but nothing that needs
/// its headers can be done with it.
public enum PacketHeaderFault: Error, Hashable, Sendable {
    /// A header extends beyond the packet's end.
    case truncated
    /// A version or length that contradicts the header it stands in.
    case malformed
    /// More tags or extension headers than `PacketHeaders.maxTags` and `.maxExtensions`.
    case tooMany
}

/// The headers of one frame: Ethernet with up to two tags, IPv4 or IPv6, TCP or UDP. Made from any bytes whatever, which
/// must be private; offsets are bytes from the destination address on, and every one was checked against `count`.
public struct PacketHeaders: Hashable, Sendable {
    /// The network layer.
    public enum Network: UInt8, Sendable {
        /// No IP, or not followed.
        case none
        case ipv4
        case ipv6
    }
    /// The transport layer.
    public enum Transport: UInt8, Sendable {
        /// Neither TCP nor UDP, a fragment of either, or not followed.
        case none
        case tcp
        case udp
    }

    /// 802.1Q and 802.1ad tags that are followed.
    @inlinable public static var maxTags: Int { 2 }
    /// IPv6 extension headers that are followed.
    @inlinable public static var maxExtensions: Int { 8 }

    @usableFromInline var storedNetwork = Network.none
    @usableFromInline var storedTransport = Transport.none
    @usableFromInline var storedFragment = false
    @usableFromInline var storedTagged = false
    @usableFromInline var storedFault: PacketHeaderFault?
    @usableFromInline var storedProtocol: UInt8 = 0
    @usableFromInline var storedType: UInt16 = 0
    @usableFromInline var networkStart = 0
    @usableFromInline var transportStart = 0
    @usableFromInline var end = 0

    @inlinable public var network: Network { storedNetwork }
    @inlinable public var transport: Transport { storedTransport }
    /// Whether the packet is a fragment, and not a whole datagram. Its `transport` is `none`.
    @inlinable public var isFragment: Bool { storedFragment }
    /// Whether there is a tag (802.1Q or 802.1ad) before the network layer.
    @inlinable public var isTagged: Bool { storedTagged }
    /// nil: everything was understood, or is of a kind that is not followed.
    @inlinable public var fault: PacketHeaderFault? { storedFault }
    /// The type behind the tags, as `0x0800`.
    @inlinable public var etherType: UInt16 { storedType }
    /// Of IPv4, or of the last IPv6 extension header: 6 for TCP.
    @inlinable public var transportProtocol: UInt8 { storedProtocol }
    /// Where the IP header begins, if `network` is not `none`.
    @inlinable public var networkOffset: Int { networkStart }
    /// Where what IP carries begins, if `network` is not `none`.
    @inlinable public var transportOffset: Int { transportStart }
    /// The end of the last header that was understood.
    @inlinable public var headerEnd: Int { end }
    /// Where the checksum of TCP or UDP stands; nil for all else.
    @inlinable public var checksumField: Int? {
        switch transport {
        case .none: nil
        case .tcp: transportStart &+ 16
        case .udp: transportStart &+ 6
        }
    }

    /// - Parameters:
    ///   - bytes: the packet, private, from its first byte on.
    ///   - count: bytes of the packet that may be looked at; at most `bytes.byteCount` (ours to guarantee).
    @inlinable
    public init(parsing bytes: some WireBytes, count: Int) {
        precondition(count <= bytes.byteCount)
        do throws(PacketHeaderFault) {
            try parseLink(bytes, count)
            switch storedType {
            case 0x0800: try parseIPv4(bytes, count)
            case 0x86DD: try parseIPv6(bytes, count)
            default: return
            }
            try parseTransport(bytes, count)
        } catch {
            storedFault = error
        }
    }

    @inlinable
    mutating func parseLink(_ bytes: some WireBytes, _ count: Int) throws(PacketHeaderFault) {
        guard count >= 14 else { throw .truncated }
        end = 14
        storedType = bytes.u16(12).byteSwapped
        var tags = 0
        while storedType == 0x8100 || storedType == 0x88A8 {
            guard tags < PacketHeaders.maxTags else { throw .tooMany }
            guard count &- end >= 4 else { throw .truncated }
            storedType = bytes.u16(end &+ 2).byteSwapped
            end &+= 4
            tags &+= 1
            storedTagged = true
        }
    }

    @inlinable
    mutating func parseIPv4(_ bytes: some WireBytes, _ count: Int) throws(PacketHeaderFault) {
        let start = end
        guard count &- start >= 20 else { throw .truncated }
        let first = bytes.u8(start)
        let length = Int(first & 15) &* 4
        let total = Int(bytes.u16(start &+ 2).byteSwapped)
        // A total of 0 is what some frontends write in packets to be segmented.
        guard first &>> 4 == 4, length >= 20, total >= length || total == 0 else { throw .malformed }
        guard count &- start >= length else { throw .truncated }
        storedNetwork = .ipv4
        networkStart = start
        transportStart = start &+ length
        end = transportStart
        storedProtocol = bytes.u8(start &+ 9)
        // More to come, or not the first.
        storedFragment = bytes.u16(start &+ 6).byteSwapped & 0x3FFF != 0
    }

    @inlinable
    mutating func parseIPv6(_ bytes: some WireBytes, _ count: Int) throws(PacketHeaderFault) {
        let start = end
        guard count &- start >= 40 else { throw .truncated }
        guard bytes.u8(start) &>> 4 == 6 else { throw .malformed }
        storedNetwork = .ipv6
        networkStart = start
        transportStart = start &+ 40
        end = transportStart
        storedProtocol = bytes.u8(start &+ 6)
        var followed = 0
        while let length = try extensionLength(bytes, count) {
            guard followed < PacketHeaders.maxExtensions else { throw .tooMany }
            guard count &- transportStart >= length else { throw .truncated }
            storedProtocol = bytes.u8(transportStart)
            transportStart &+= length
            end = transportStart
            followed &+= 1
            // What a fragment holds is for the end that puts it together.
            if storedFragment { return }
        }
    }

    /// Bytes of the extension header at `transportStart`; nil if there is none.
    @inlinable
    mutating func extensionLength(_ bytes: some WireBytes, _ count: Int) throws(PacketHeaderFault) -> Int? {
        let unit: Int
        switch storedProtocol {
        case 0, 43, 60: unit = 8  // hop by hop, routing, destination options
        case 51: unit = 4  // authentication
        case 44:
            guard count &- transportStart >= 8 else { throw .truncated }
            storedFragment = bytes.u16(transportStart &+ 2).byteSwapped & 0xFFF9 != 0
            return 8
        default: return nil
        }
        guard count &- transportStart >= 8 else { throw .truncated }
        let length = Int(bytes.u8(transportStart &+ 1))
        return unit == 8 ? (length &+ 1) &* 8 : (length &+ 2) &* 4
    }

    @inlinable
    mutating func parseTransport(_ bytes: some WireBytes, _ count: Int) throws(PacketHeaderFault) {
        guard !storedFragment else { return }
        let start = transportStart
        switch storedProtocol {
        case 6:
            guard count &- start >= 20 else { throw .truncated }
            let length = Int(bytes.u8(start &+ 12) &>> 4) &* 4
            guard length >= 20 else { throw .malformed }
            guard count &- start >= length else { throw .truncated }
            storedTransport = .tcp
            end = start &+ length
        case 17:
            guard count &- start >= 8 else { throw .truncated }
            storedTransport = .udp
            end = start &+ 8
        default: break
        }
    }
}
