// Messages of netchannel2: decoded from private bytes, encoded to private bytes.

/// Why the bytes of a message make none. The ring goes on at the next message, but a peer that sends such a thing is
/// not to be trusted with anything.
public enum NetChannel2MessageFault: Error, Hashable, Sendable, CustomStringConvertible {
    /// The size is not the one that messages of this type have.
    case wrongSize(type: NetChannel2MessageType, size: Int)
    /// `NetChannel2PacketType` has no such packet.
    case packetType(UInt8)
    /// `segmentation_type` is neither 0 nor TCP over IPv4.
    case segmentationType(UInt8)
    /// A packet in segments of 0 bytes.
    case segmentationSize
    /// More bytes in the message than `NetChannel2Wire.maxPrefix`, or than the message has.
    case prefix(Int)
    /// More than `NetChannel2Wire.maxFragments`, or one in a packet that has none.
    case fragmentCount(Int)
    /// A fragment without bytes, or with some beyond its page.
    case crossesPage(offset: UInt16, size: UInt16)
    /// More bytes than `NetChannel2Wire.maxPacket`.
    case packetSize(Int)
    /// Rings of a bypass that are no power of two, or too large.
    case ringPages(UInt8)

    public var description: String {
        switch self {
        case .wrongSize(let type, let size): "a message of type \(type.rawValue) with \(size) bytes"
        case .packetType(let type): "a packet of type \(type)"
        case .segmentationType(let type): "a packet in segments of type \(type)"
        case .segmentationSize: "a packet in segments of 0 bytes"
        case .prefix(let count): "a packet with \(count) bytes in its message"
        case .fragmentCount(let count): "a packet with \(count) fragments"
        case .crossesPage(let offset, let size): "a fragment of \(size) bytes at \(offset) of its page"
        case .packetSize(let count): "a packet of \(count) bytes"
        case .ringPages(let count): "a bypass with rings of \(count) pages"
        }
    }
}

/// A message as a value.
public enum NetChannel2Message: Hashable, Sendable {
    /// So many packets may be sent to the sender of this before it has finished one.
    case setMaxPackets(UInt32)
    case packet(NetChannel2Packet)
    /// The packet of that number is no longer needed.
    case finishPacket(id: UInt32)
    case setOffload(NetChannel2Offloads)
    case setMaxFragmentsPerPacket(UInt32)
    case bypass(NetChannel2Bypass)
    case pad
    /// To be skipped.
    case unknown(NetChannel2MessageType)

    /// - Parameter bytes: the whole message, as its header says.
    @inlinable
    public init(decoding bytes: some WireBytes) throws(NetChannel2MessageFault) {
        let type = NetChannel2MessageType(rawValue: bytes.u8(0))
        switch type {
        case .packet: self = .packet(try NetChannel2Packet(decoding: bytes))
        case .finishPacket: self = .finishPacket(id: try Self.number(bytes, type))
        case .setMaxPackets: self = .setMaxPackets(try Self.number(bytes, type))
        case .setMaxFragmentsPerPacket: self = .setMaxFragmentsPerPacket(try Self.number(bytes, type))
        case .setOffload:
            let words = try Self.number(bytes, type)
            var offloads: NetChannel2Offloads = []
            if words & 0xFF != 0 { offloads.insert(.checksum) }
            if words & 0xFF00 != 0 { offloads.insert(.segmentationV4) }
            self = .setOffload(offloads)
        case .pad: self = .pad
        default:
            if let bypass = try NetChannel2Bypass(decoding: bytes, type) {
                self = .bypass(bypass)
            } else {
                self = .unknown(type)
            }
        }
    }

    /// The number of a message that has nothing else.
    @inlinable
    static func number(
        _ bytes: some WireBytes,
        _ type: NetChannel2MessageType
    ) throws(NetChannel2MessageFault) -> UInt32 {
        guard bytes.byteCount == NetChannel2Wire.shortMessage else {
            throw .wrongSize(type: type, size: bytes.byteCount)
        }
        return bytes.u32(4)
    }

    /// All eight bytes of FINISH_PACKET.
    @inlinable
    public static func finish(id: UInt32) -> WireWords { short(.finishPacket, id) }
    /// All eight bytes of SET_MAX_PACKETS.
    @inlinable
    public static func maxPackets(_ count: UInt32) -> WireWords { short(.setMaxPackets, count) }
    /// All eight bytes of SET_MAX_FRAGMENTS_PER_PACKET.
    @inlinable
    public static func maxFragments(_ count: UInt32) -> WireWords { short(.setMaxFragmentsPerPacket, count) }
    /// All eight bytes of SET_OFFLOAD.
    @inlinable
    public static func offloads(_ offloads: NetChannel2Offloads) -> WireWords {
        short(
            .setOffload,
            (offloads.contains(.checksum) ? 1 : 0) | (offloads.contains(.segmentationV4) ? 0x100 : 0)
        )
    }

    @inlinable
    static func short(_ type: NetChannel2MessageType, _ number: UInt32) -> WireWords {
        let header = NetChannel2Header(type, size: NetChannel2Wire.shortMessage)
        return WireWords(low: UInt64(header.word) | UInt64(number) &<< 32, high: 0)
    }
}
