// What can follow the first slot of a packet (netif.h, "Extra Info").

/// TCP segmentation that the receiver of a packet has to do, or may leave undone.
public struct Segmentation: Hashable, Sendable {
    /// `XEN_NETIF_GSO_TYPE_*`
    public enum Kind: UInt8, Sendable {
        case tcpv4 = 1
        case tcpv6 = 2
    }
    public let kind: Kind
    /// Bytes of TCP payload in each segment (the MSS); never 0.
    public let size: UInt16

    /// - Returns: nil for a size of 0.
    @inlinable
    public init?(kind: Kind, size: UInt16) {
        guard size != 0 else { return nil }
        self.kind = kind
        self.size = size
    }
}

/// A packet's hash as it travels with the packet.
public struct PacketHash: Hashable, Sendable {
    /// `_XEN_NETIF_CTRL_HASH_TYPE_*`, **bit numbers** of `HashTypes`.
    public enum Kind: UInt8, Sendable {
        case ipv4 = 0
        case ipv4TCP = 1
        case ipv6 = 2
        case ipv6TCP = 3
    }
    public let kind: Kind
    public let value: UInt32

    @inlinable
    public init(kind: Kind, value: UInt32) {
        self.kind = kind
        self.value = value
    }
}

/// An extra: 8 bytes (`struct xen_netif_extra_info`), in a transmit slot followed by 4 that mean nothing.
public enum ExtraInfo: Hashable, Sendable {
    case segmentation(Segmentation)
    case multicastAdd(MACAddress)
    case multicastDelete(MACAddress)
    /// nil: of a kind or algorithm that we do not know. It is advice, and no reason to drop a packet.
    case hash(PacketHash?)
    /// Bytes left free before the data (`XEN_NETIF_EXTRA_TYPE_XDP` of Linux's header).
    case headroom(UInt16)

    /// Reads the 8 bytes of an extra as one little-endian number.
    /// - Throws: `unknownExtra`, `segmentationSize`, `segmentationKind`.
    @inlinable
    public init(word: UInt64) throws(NetRingFault) {
        switch UInt8(truncatingIfNeeded: word) {
        case 1:
            let kind = UInt8(truncatingIfNeeded: word &>> 32)
            guard let known = Segmentation.Kind(rawValue: kind) else { throw .segmentationKind(kind) }
            guard let value = Segmentation(kind: known, size: UInt16(truncatingIfNeeded: word &>> 16)) else {
                throw .segmentationSize
            }
            self = .segmentation(value)
        case 2: self = .multicastAdd(MACAddress(rawValue: word &>> 16))
        case 3: self = .multicastDelete(MACAddress(rawValue: word &>> 16))
        case 4:
            guard let kind = PacketHash.Kind(rawValue: UInt8(truncatingIfNeeded: word &>> 16)),
                UInt8(truncatingIfNeeded: word &>> 24) == UInt8(truncatingIfNeeded: HashAlgorithm.toeplitz.rawValue)
            else {
                self = .hash(nil)
                return
            }
            self = .hash(PacketHash(kind: kind, value: UInt32(truncatingIfNeeded: word &>> 32)))
        case 5: self = .headroom(UInt16(truncatingIfNeeded: word &>> 16))
        case let type: throw .unknownExtra(type)
        }
    }

    /// `XEN_NETIF_EXTRA_FLAG_MORE`: another extra follows.
    @inlinable public static func hasMore(word: UInt64) -> Bool { word & 0x100 != 0 }

    /// The 8 bytes as one little-endian number.
    /// - Parameter more: whether another extra follows.
    @inlinable
    public func word(more: Bool = false) -> UInt64 {
        let flags: UInt64 = more ? 0x100 : 0
        switch self {
        case .segmentation(let value):
            return 1 | flags | UInt64(value.size) &<< 16 | UInt64(value.kind.rawValue) &<< 32
        case .multicastAdd(let address): return 2 | flags | address.rawValue &<< 16
        case .multicastDelete(let address): return 3 | flags | address.rawValue &<< 16
        case .hash(nil): return 4 | flags
        case .hash(let hash?):
            let algorithm = UInt64(HashAlgorithm.toeplitz.rawValue) &<< 24
            return 4 | flags | UInt64(hash.kind.rawValue) &<< 16 | algorithm | UInt64(hash.value) &<< 32
        case .headroom(let bytes): return 5 | flags | UInt64(bytes) &<< 16
        }
    }
}

/// `XEN_NETIF_CTRL_HASH_ALGORITHM_*`
public enum HashAlgorithm: UInt32, Sendable {
    case none = 0
    case toeplitz = 1
}
