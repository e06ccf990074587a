// The header in front of each packet of a TAP device (linux/virtio_net.h, `struct virtio_net_hdr`).

/// The 10 bytes before each frame.
public struct VirtioNetHeader: Hashable, Sendable {
    /// `VIRTIO_NET_HDR_F_*`
    public struct Flags: OptionSet, Hashable, Sendable {
        public let rawValue: UInt8
        @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }
        /// From `checksumStart` to the packet's end must be summed, into the field `checksumOffset` behind it.
        @inlinable public static var needsChecksum: Flags { Flags(rawValue: 1) }
        /// The checksum was verified.
        @inlinable public static var dataValid: Flags { Flags(rawValue: 2) }
    }
    /// `VIRTIO_NET_HDR_GSO_*`. Any byte can stand there, so this is not an enumeration.
    public struct Kind: RawRepresentable, Hashable, Sendable {
        public let rawValue: UInt8
        @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }
        @inlinable public static var none: Kind { Kind(rawValue: 0) }
        @inlinable public static var tcpv4: Kind { Kind(rawValue: 1) }
        @inlinable public static var tcpv6: Kind { Kind(rawValue: 4) }
        /// Without `VIRTIO_NET_HDR_GSO_ECN`, which netif.h has no word for and the frontend sees in the TCP header.
        @inlinable public var withoutECN: Kind { Kind(rawValue: rawValue & 0x7F) }
    }

    /// Bytes in front of a frame.
    @inlinable public static var byteCount: Int { 10 }

    public var flags: Flags
    public var segmentKind: Kind
    /// Bytes that the receiver makes contiguous.
    public var headerLength: UInt16
    public var segmentSize: UInt16
    public var checksumStart: UInt16
    public var checksumOffset: UInt16

    /// A packet with nothing special about it.
    @inlinable
    public init() {
        flags = []
        segmentKind = .none
        headerLength = 0
        segmentSize = 0
        checksumStart = 0
        checksumOffset = 0
    }

    /// - Parameter bytes: at least 10.
    @inlinable
    public init(decoding bytes: some WireBytes) {
        let word = bytes.u64(0)
        flags = Flags(rawValue: UInt8(truncatingIfNeeded: word))
        segmentKind = Kind(rawValue: UInt8(truncatingIfNeeded: word &>> 8))
        headerLength = UInt16(truncatingIfNeeded: word &>> 16)
        segmentSize = UInt16(truncatingIfNeeded: word &>> 32)
        checksumStart = UInt16(truncatingIfNeeded: word &>> 48)
        checksumOffset = bytes.u16(8)
    }

    /// Writes all 10 bytes.
    @inlinable
    public func encode(into bytes: some WritableWireBytes) {
        let first = UInt64(flags.rawValue) | UInt64(segmentKind.rawValue) &<< 8 | UInt64(headerLength) &<< 16
        bytes.set64(first | UInt64(segmentSize) &<< 32 | UInt64(checksumStart) &<< 48, at: 0)
        bytes.set16(checksumOffset, at: 8)
    }

    /// Whether the headers of the packet matter for carrying it.
    @inlinable public var needsHeaders: Bool { flags.contains(.needsChecksum) || segmentKind != .none }
}
