// The PACKET message: a packet's facts, its fragments, and where its first bytes are.

/// Everything of a PACKET message but its fragments and bytes, which stay in the private copy of the message.
public struct NetChannel2Packet: Hashable, Sendable {
    /// The sender's number for it: opaque, only for FINISH_PACKET.
    public var id: UInt32
    public var type: NetChannel2PacketType
    public var flags: NetChannel2PacketFlags
    /// Bytes of TCP payload in a segment; 0: the packet is not to be segmented.
    public var segmentSize: UInt16
    /// With `checksumBlank`: first byte that is summed up, and where the result goes, both from the packet's beginning.
    public var checksumStart: UInt16
    public var checksumOffset: UInt16
    /// Bytes of the packet in the message itself: its first.
    public var prefixSize: Int
    public var fragmentCount: Int
    /// Bytes of the packet, fragments included.
    public var byteCount: Int

    @inlinable
    public init(
        id: UInt32,
        type: NetChannel2PacketType,
        flags: NetChannel2PacketFlags = [],
        segmentSize: UInt16 = 0,
        checksumStart: UInt16 = 0,
        checksumOffset: UInt16 = 0,
        prefixSize: Int,
        fragmentCount: Int = 0,
        byteCount: Int
    ) {
        self.id = id
        self.type = type
        self.flags = flags
        self.segmentSize = segmentSize
        self.checksumStart = checksumStart
        self.checksumOffset = checksumOffset
        self.prefixSize = prefixSize
        self.fragmentCount = fragmentCount
        self.byteCount = byteCount
    }

    /// Whether its receiver answers it with a FINISH_PACKET.
    @inlinable public var needsFinish: Bool { type != .small }

    /// Where the prefix begins in the message.
    @inlinable
    public var prefixOffset: Int { NetChannel2Wire.packetHead &+ fragmentCount &* NetChannel2Wire.fragmentBytes }

    /// Bytes of the whole message.
    @inlinable
    public var messageSize: Int { NetChannel2Wire.packetMessage(fragments: fragmentCount, prefix: prefixSize) }

    /// Fragment `index` of the message whose private copy is `bytes`.
    @inlinable
    public func fragment(_ index: Int, in bytes: some WireBytes) -> NetChannel2Fragment {
        let word = bytes.u64(NetChannel2Wire.packetHead &+ index &* NetChannel2Wire.fragmentBytes)
        return NetChannel2Fragment(
            size: UInt16(truncatingIfNeeded: word),
            offset: UInt16(truncatingIfNeeded: word &>> 16),
            reference: GrantReference(UInt32(truncatingIfNeeded: word &>> 32))
        )
    }

    /// Checks that the message is one, and that all of its fragments lie in their pages. How many fragments and packets
    /// were announced is another question.
    @inlinable
    public init(decoding bytes: some WireBytes) throws(NetChannel2MessageFault) {
        let size = bytes.byteCount
        guard size >= NetChannel2Wire.packetHead else { throw .wrongSize(type: .packet, size: size) }
        guard let type = NetChannel2PacketType(rawValue: bytes.u8(8)) else { throw .packetType(bytes.u8(8)) }
        let prefix = Int(bytes.u16(12))
        let rest = size &- NetChannel2Wire.packetHead &- prefix
        guard prefix <= NetChannel2Wire.maxPrefix, rest >= 0 else { throw .prefix(prefix) }
        // Padding is less than one fragment.
        let count = rest / NetChannel2Wire.fragmentBytes
        guard count <= (type == .small ? 0 : NetChannel2Wire.maxFragments) else { throw .fragmentCount(count) }
        self.init(
            id: bytes.u32(4),
            type: type,
            flags: NetChannel2PacketFlags(rawValue: bytes.u8(9)),
            segmentSize: try NetChannel2Packet.segmentSize(bytes),
            checksumStart: bytes.u16(16),
            checksumOffset: bytes.u16(18),
            prefixSize: prefix,
            fragmentCount: count,
            byteCount: prefix
        )
        for index in 0..<count {
            let fragment = fragment(index, in: bytes)
            guard fragment.isInPage else { throw .crossesPage(offset: fragment.offset, size: fragment.size) }
            byteCount &+= Int(fragment.size)
        }
        guard byteCount <= NetChannel2Wire.maxPacket else { throw .packetSize(byteCount) }
    }

    @inlinable
    static func segmentSize(_ bytes: some WireBytes) throws(NetChannel2MessageFault) -> UInt16 {
        switch bytes.u8(10) {
        case 0: return 0
        case 1:
            guard bytes.u16(14) > 0 else { throw .segmentationSize }
            return bytes.u16(14)
        case let type: throw .segmentationType(type)
        }
    }

    /// Writes everything before the prefix but the fragments, which `encode(_:at:into:)` adds.
    @inlinable
    public func encode(into bytes: some WritableWireBytes) {
        bytes.set32(NetChannel2Header(.packet, size: messageSize).word, at: 0)
        bytes.set32(id, at: 4)
        bytes.set8(type.rawValue, at: 8)
        bytes.set8(flags.rawValue, at: 9)
        bytes.set16(segmentSize == 0 ? 0 : 1, at: 10)
        bytes.set16(UInt16(truncatingIfNeeded: prefixSize), at: 12)
        bytes.set16(segmentSize, at: 14)
        bytes.set16(checksumStart, at: 16)
        bytes.set16(checksumOffset, at: 18)
    }

    /// Writes fragment `index`.
    @inlinable
    public static func encode(_ fragment: NetChannel2Fragment, at index: Int, into bytes: some WritableWireBytes) {
        let low = UInt64(fragment.size) | UInt64(fragment.offset) &<< 16
        bytes.set64(
            low | UInt64(fragment.reference.rawValue) &<< 32,
            at: NetChannel2Wire.packetHead &+ index &* NetChannel2Wire.fragmentBytes
        )
    }
}
