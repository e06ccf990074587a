// Numbers and flags of netif.h.

/// Sizes and limits of the network rings. Every ring is one page.
public enum NetWire {
    /// `struct xen_netif_tx_request`, and the stride of the transmit ring.
    @inlinable public static var transmitStride: Int { 12 }
    /// `struct xen_netif_tx_response`: what is written into a slot; the rest of it stays.
    @inlinable public static var transmitResponseSize: Int { 4 }
    /// `struct xen_netif_rx_request`, `struct xen_netif_rx_response`, and the stride of the receive ring.
    @inlinable public static var receiveStride: Int { 8 }
    /// `struct xen_netif_ctrl_request`, and the stride of the control ring.
    @inlinable public static var controlStride: Int { 16 }
    /// `struct xen_netif_ctrl_response`.
    @inlinable public static var controlResponseSize: Int { 12 }
    @inlinable public static var transmitSlots: Int { 256 }
    @inlinable public static var receiveSlots: Int { 256 }
    /// `XEN_NETIF_NR_SLOTS_MIN`: slots of a packet that every backend takes. Extras are not counted.
    @inlinable public static var maxSlotsPerPacket: Int { 18 }
    /// Slots after the first that a packet may have: xen-netback counts the 18 without the first one
    /// (`XEN_NETBK_LEGACY_SLOTS_MAX` in `xenvif_count_requests`), and frontends live by it.
    @inlinable public static var maxFurtherSlots: Int { 18 }
    /// Slots after the first beyond which a frontend is malicious (xen-netback's `fatal_skb_slots`). Between the two it
    /// is only wrong, and its packet is dropped.
    @inlinable public static var fatalSlots: Int { 20 }
    /// Bytes of the largest packet of a frontend: `size` has 16 bits.
    @inlinable public static var maxPacket: Int { 65535 }
    /// Bytes of the largest frame for a frontend. No field of the receive ring holds a packet's size, so its limit is IP's
    /// own: 65535 bytes, behind an Ethernet header with two VLAN tags.
    @inlinable public static var maxReceivedFrame: Int { 14 + 2 * 4 + 65535 }
    /// Destination, source, type: a packet's first slot holds at least these.
    @inlinable public static var minFirstSize: Int { 14 }
    /// Bytes of a granted page.
    @inlinable public static var pageSize: Int { 4096 }
    /// Pages, each from its beginning, that take `byteCount` bytes.
    @inlinable public static func pages(of byteCount: Int) -> Int { (byteCount &+ pageSize &- 1) / pageSize }
}

/// `XEN_NETTXF_*`, of a packet that the frontend sends.
public struct TransmitFlags: OptionSet, Hashable, Sendable {
    public let rawValue: UInt16
    @inlinable public init(rawValue: UInt16) { self.rawValue = rawValue }
    /// The checksum field of TCP or UDP holds only the sum of the pseudo header.
    @inlinable public static var checksumBlank: TransmitFlags { TransmitFlags(rawValue: 1) }
    /// The data were checked already, or never left the machine.
    @inlinable public static var dataValidated: TransmitFlags { TransmitFlags(rawValue: 2) }
    /// The packet continues in the next request (after the extras).
    @inlinable public static var moreData: TransmitFlags { TransmitFlags(rawValue: 4) }
    /// The next slot is an extra. Looked at in a packet's first request only.
    @inlinable public static var extraInfo: TransmitFlags { TransmitFlags(rawValue: 8) }
}

/// `XEN_NETRXF_*`, of a packet that the frontend receives. The first two have changed places against `TransmitFlags`.
public struct ReceiveFlags: OptionSet, Hashable, Sendable {
    public let rawValue: UInt16
    @inlinable public init(rawValue: UInt16) { self.rawValue = rawValue }
    /// The data were checked already, or never left the machine.
    @inlinable public static var dataValidated: ReceiveFlags { ReceiveFlags(rawValue: 1) }
    /// The checksum field of TCP or UDP holds only the sum of the pseudo header.
    @inlinable public static var checksumBlank: ReceiveFlags { ReceiveFlags(rawValue: 2) }
    /// The packet continues in the next response (after the extras).
    @inlinable public static var moreData: ReceiveFlags { ReceiveFlags(rawValue: 4) }
    /// The next response is an extra.
    @inlinable public static var extraInfo: ReceiveFlags { ReceiveFlags(rawValue: 8) }
    /// Obsolete; never sent.
    @inlinable public static var segmentationPrefix: ReceiveFlags { ReceiveFlags(rawValue: 16) }
}

/// What a transmit request is answered with (`XEN_NETIF_RSP_*`).
public enum TransmitStatus: Int16, Sendable {
    case okay = 0
    case error = -1
    case dropped = -2
    /// For the slot of an extra.
    case null = 1

    /// The 16 bits on the ring.
    @inlinable public var wireValue: UInt16 {
        switch self {
        case .okay: 0
        case .error: 0xFFFF
        case .dropped: 0xFFFE
        case .null: 1
        }
    }
}
