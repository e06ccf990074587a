// Numbers and flags of netchannel2.h.

/// Sizes and limits of netchannel2's messages.
public enum NetChannel2Wire {
    /// `struct netchannel2_msg_hdr`: type, flags, size.
    @inlinable public static var headerBytes: Int { 4 }
    /// Every message is a multiple of this, and begins at one.
    @inlinable public static var alignment: Int { 8 }
    /// SET_*, FINISH_PACKET and what answers a bypass.
    @inlinable public static var shortMessage: Int { 8 }
    /// A PACKET without fragments and prefix.
    @inlinable public static var packetHead: Int { 20 }
    /// `struct netchannel2_fragment`.
    @inlinable public static var fragmentBytes: Int { 8 }
    /// `NETCHANNEL2_MAX_INLINE_BYTES`: bytes of a packet that may lie in its message.
    @inlinable public static var maxPrefix: Int { 256 }
    /// Bytes of the largest packet, prefix and fragments together.
    @inlinable public static var maxPacket: Int { 65536 }
    /// Fragments that no packet ever has more of, whatever was announced: 64 KiB in pages that begin anywhere, and one
    /// more for headers.
    @inlinable public static var maxFragments: Int { 18 }
    /// Bytes of the largest message that is ever looked into: a packet with all fragments and a full prefix.
    @inlinable public static var maxMessage: Int { 424 }
    /// Bytes of a granted page.
    @inlinable public static var pageSize: Int { 4096 }
    /// Destination, source, type.
    @inlinable public static var minPacket: Int { 14 }
    /// log2 of the pages of the largest payload ring: the size of a PAD has 16 bits.
    @inlinable public static var maxRingOrder: UInt32 { 4 }
    /// Bytes kept free in the producing ring for each FINISH_PACKET that may become due: its own eight, and as many for a
    /// PAD before it.
    @inlinable public static var finishReservation: Int { 16 }

    /// Bytes of a PACKET message.
    @inlinable
    public static func packetMessage(fragments: Int, prefix: Int) -> Int {
        (packetHead &+ fragments &* fragmentBytes &+ prefix &+ alignment &- 1) & ~(alignment &- 1)
    }

    /// The most packets that an end may let the other have outstanding: all FINISH_PACKETs that it may owe must fit into
    /// half of the ring that it produces on.
    @inlinable
    public static func maxPackets(producingRingBytes: Int) -> UInt32 {
        UInt32(truncatingIfNeeded: producingRingBytes / 2 / finishReservation)
    }
}

/// `NETCHANNEL2_MSG_*`. 6, 7 and 8 were never released; a number without a name is an unknown message.
public struct NetChannel2MessageType: RawRepresentable, Hashable, Sendable {
    public let rawValue: UInt8
    @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }

    @inlinable public static var setMaxPackets: Self { Self(rawValue: 1) }
    @inlinable public static var packet: Self { Self(rawValue: 2) }
    @inlinable public static var finishPacket: Self { Self(rawValue: 3) }
    @inlinable public static var setOffload: Self { Self(rawValue: 4) }
    @inlinable public static var setMaxFragmentsPerPacket: Self { Self(rawValue: 5) }
    @inlinable public static var bypassFrontend: Self { Self(rawValue: 9) }
    @inlinable public static var bypassBackend: Self { Self(rawValue: 10) }
    @inlinable public static var bypassFrontendReady: Self { Self(rawValue: 11) }
    @inlinable public static var bypassReady: Self { Self(rawValue: 12) }
    @inlinable public static var bypassDisable: Self { Self(rawValue: 13) }
    @inlinable public static var bypassDisabled: Self { Self(rawValue: 14) }
    @inlinable public static var bypassDetach: Self { Self(rawValue: 15) }
    @inlinable public static var bypassDetached: Self { Self(rawValue: 16) }
    @inlinable public static var suggestBypass: Self { Self(rawValue: 17) }
    /// Bytes up to the end of the ring that mean nothing (uring.h).
    @inlinable public static var pad: Self { Self(rawValue: 255) }

    /// Whether messages of this type have a size that is known; a PAD has any.
    @inlinable public var isKnown: Bool { (1...5).contains(rawValue) || (9...17).contains(rawValue) }
}

/// The first four bytes of every message.
public struct NetChannel2Header: Hashable, Sendable {
    public let type: NetChannel2MessageType
    /// No bit has a meaning: 0 when sent, ignored when received.
    public let flags: UInt8
    /// Bytes of the message, this header and all padding included.
    public let size: UInt16

    @inlinable
    public init(_ type: NetChannel2MessageType, size: Int) {
        self.type = type
        flags = 0
        self.size = UInt16(truncatingIfNeeded: size)
    }

    /// From the message's first four bytes, as a number.
    @inlinable
    public init(word: UInt32) {
        type = NetChannel2MessageType(rawValue: UInt8(truncatingIfNeeded: word))
        flags = UInt8(truncatingIfNeeded: word &>> 8)
        size = UInt16(truncatingIfNeeded: word &>> 16)
    }

    /// The four bytes as a number.
    @inlinable
    public var word: UInt32 { UInt32(type.rawValue) | UInt32(flags) &<< 8 | UInt32(size) &<< 16 }
}

/// `NETCHANNEL2_PACKET_TYPE_*`. 2, "pre_posted", was never released.
public enum NetChannel2PacketType: UInt8, Hashable, Sendable {
    /// Fragments that the receiver can only copy.
    case receiverCopy = 1
    /// Fragments that the receiver can map or copy.
    case receiverMap = 3
    /// All of the packet is in the message. It is never finished.
    case small = 4
}

/// `NC2_PACKET_FLAG_*`.
public struct NetChannel2PacketFlags: OptionSet, Hashable, Sendable {
    public let rawValue: UInt8
    @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }
    /// The checksum from `checksumStart` on is for the receiver to fill in.
    @inlinable public static var checksumBlank: Self { Self(rawValue: 0x01) }
    /// The sender vouches for the checksum of TCP or UDP.
    @inlinable public static var dataValidated: Self { Self(rawValue: 0x02) }
    /// The packet could have gone over a bypass.
    @inlinable public static var bypassCandidate: Self { Self(rawValue: 0x04) }
    /// The sender wants an event with this packet's FINISH_PACKET.
    @inlinable public static var needEvent: Self { Self(rawValue: 0x08) }
}

/// SET_OFFLOAD: what the sender of the message takes.
public struct NetChannel2Offloads: OptionSet, Hashable, Sendable {
    public let rawValue: UInt8
    @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }
    /// Packets whose checksum is blank.
    @inlinable public static var checksum: Self { Self(rawValue: 1) }
    /// TCP over IPv4 in pieces beyond the MTU.
    @inlinable public static var segmentationV4: Self { Self(rawValue: 2) }
}

/// One piece of a packet in a page that the packet's sender granted (`struct netchannel2_fragment`, 8 bytes).
public struct NetChannel2Fragment: Hashable, Sendable {
    public let size: UInt16
    /// First byte in the page.
    public let offset: UInt16
    public let reference: GrantReference

    @inlinable
    public init(size: UInt16, offset: UInt16, reference: GrantReference) {
        self.size = size
        self.offset = offset
        self.reference = reference
    }

    /// Whether it has bytes, and all of them in one page.
    @inlinable var isInPage: Bool { size > 0 && Int(offset) &+ Int(size) <= NetChannel2Wire.pageSize }
}
