// What the kernel says about an interface, and what can be changed.

/// An interface of the host at one moment.
struct Link: Hashable, Sendable {
    var index: CInt
    var name: String
    /// `ifalias`, free text kept by the kernel; empty if there is none.
    var alias: String
    /// What made it: `tun`, `bridge`, `veth`; empty for hardware.
    var kind: String
    /// The index of the bridge (or the like) that it is a port of, or 0.
    var master: CInt
    var isUp: Bool
    var hasCarrier: Bool
    var mtu: UInt32
    var address: [UInt8]
    var counters: LinkCounters
}

/// The kernel's counters of an interface, as the host sees it: `received` came from the guest's side.
public struct LinkCounters: Hashable, Sendable {
    public var receivedPackets: UInt64 = 0
    public var receivedBytes: UInt64 = 0
    public var receivedDropped: UInt64 = 0
    public var sentPackets: UInt64 = 0
    public var sentBytes: UInt64 = 0
    public var sentDropped: UInt64 = 0
}

/// Changes of an interface that the kernel makes together, in its own order; nil leaves a value as it is.
struct LinkChange: Sendable {
    var name: String?
    var address: [UInt8]?
    var mtu: UInt32?
    var alias: String?
    /// The index of the bridge to be a port of; 0 for none.
    var master: CInt?
    var isUp: Bool?
    var hasCarrier: Bool?
    /// Packets that wait for each queue of a TAP.
    var queueLength: UInt32?
}
