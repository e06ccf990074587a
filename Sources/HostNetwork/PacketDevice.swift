// The host's end of a virtual network card: an interface with queues that send and receive one packet at a time.

public import HostIO

/// Work that the frontend accepts packets without, so that the host may leave it undone.
public struct PacketOffloads: OptionSet, Hashable, Sendable {
    public let rawValue: UInt8
    public init(rawValue: UInt8) { self.rawValue = rawValue }
    /// TCP and UDP checksums may be missing (`TUN_F_CSUM`).
    public static let checksum = PacketOffloads(rawValue: 1)
    /// TCP over IPv4 in packets larger than the MTU (`TUN_F_TSO4`; needs `checksum`).
    public static let segmentationV4 = PacketOffloads(rawValue: 2)
    /// The same over IPv6 (`TUN_F_TSO6`; needs `checksum`).
    public static let segmentationV6 = PacketOffloads(rawValue: 4)
}

/// One queue of a packet device.
///
/// Its descriptor never blocks. Each read gives, each write takes, one packet: a little-endian `virtio_net_hdr_mrg_rxbuf`
/// (linux/virtio_net.h), then the frame from its destination address on. `num_buffers` means nothing in a read or a write.
public final class PacketQueue: Sendable {
    /// Bytes before each frame: those of vhost, as an interface has one size for all its queues.
    public static let headerBytes = 12
    public let file: OpenFile
    public init(_ file: OpenFile) { self.file = file }
}

/// The host's end of one virtual network card. Calls are quick system calls; any thread may make them.
public protocol PacketDevice: AnyObject, Sendable {
    /// The interface's name.
    var name: String { get }
    /// Opens `count` queues (1 … 16) of a device that has none open, or whose former queues are all closed by the release of
    /// their last reference.
    func openQueues(_ count: Int) throws(HostFailure) -> [PacketQueue]
    /// Where to get a thread of the kernel for a queue.
    var vhost: any VhostSource { get }
    /// What the host may leave undone in packets for us. Nothing, before the first call.
    func setOffloads(_ offloads: PacketOffloads) throws(HostFailure)
    /// Whether the host sees a link. Without one it sends us nothing.
    func setCarrier(_ isUp: Bool) throws(HostFailure)
    /// Packets that were dropped before they reached a queue, if the device knows.
    var droppedByHost: UInt64 { get }
    /// Keeps the interface where and as it is now, undoing changes by others.
    /// - Parameters:
    ///   - name: its expected name; nil for whatever its name is now.
    ///   - placement: how it was placed, also by a script; nil if only the script knows.
    ///   - mtu: the configured one; nil: it may follow the bridge's.
    /// - Returns: nil if the device has no place that could change.
    /// - Throws: `.busy` if another interface has the name.
    func keepPlace(
        named name: String?,
        _ placement: InterfacePlan.Placement?,
        mtu: UInt32?
    ) throws(HostFailure) -> (any PlaceKeeper)?
}

/// What an interface is to be.
public struct InterfacePlan: Hashable, Sendable {
    /// `vif<domid>.<devid>` or the toolstack's `vifname`; at most 15 bytes (IFNAMSIZ − 1).
    public var name: String
    /// Its owner, stored with the interface (`ifalias`) so that a leftover can be told from somebody else's: `xenback
    /// backend/vif/7/0`.
    public var owner: String
    /// The host's own MTU for it.
    public var mtu: UInt32
    /// Where to put it; nil: the toolstack's script does that.
    public var placement: Placement?

    /// The host's side of a card, as libxl's scripts of the same names would set it up.
    public enum Placement: Hashable, Sendable {
        /// A port of a Linux bridge; the VLAN is the port's untagged one (`vif-bridge` with `vlan`).
        case bridge(name: String, vlan: UInt16?)
        /// A port of an Open vSwitch bridge: `name[.tag][:trunk…]` (`vif-openvswitch`).
        case openVSwitch(String)
        /// A route to each address through the interface (`vif-route`); proxy ARP on.
        case routed(addresses: [String], gatewayDevice: String?)
    }

    public init(name: String, owner: String, mtu: UInt32 = 1500, placement: Placement? = nil) {
        self.name = name
        self.owner = owner
        self.mtu = mtu
        self.placement = placement
    }
}

/// Makes and removes packet devices. Calls may block for a while: make them off the loops.
public protocol NetworkHost: Sendable {
    /// Makes the interface, or takes over the one a predecessor left (same name, same owner), and brings it up as planned.
    func open(_ plan: InterfacePlan) throws(HostFailure) -> any PacketDevice
    /// Removes the interface for good; no error if it is gone.
    func remove(_ plan: InterfacePlan) throws(HostFailure)
}
