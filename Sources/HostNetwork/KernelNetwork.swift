// TAP interfaces of the running kernel: made, taken over from a predecessor, put in place, removed.

public import HostIO

/// The network of the host, in the namespace of the thread that calls.
///
/// An interface outlives the process that made it, and is recognised as ours by its alias: the plan's `owner`. It is
/// found by that alias whatever the toolstack's scripts have renamed it to.
public struct KernelNetwork: NetworkHost {
    /// The prefix of the alias of all interfaces of this service.
    public static let ownerPrefix = "xenback "
    /// The numerically largest unicast address: a bridge, which adopts the lowest of its ports' addresses, never adopts
    /// this one.
    static let address: [UInt8] = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff]

    let openVSwitch: OpenVSwitch
    let vhost: any VhostSource

    /// - Parameter vhost: for the queues of all interfaces.
    public init(vhost: any VhostSource = KernelVhost()) { self.init(openVSwitch: OpenVSwitch(), vhost: vhost) }

    init(openVSwitch: OpenVSwitch, vhost: any VhostSource = KernelVhost()) {
        self.openVSwitch = openVSwitch
        self.vhost = vhost
    }

    /// Makes the interface or takes over the one with the plan's owner.
    ///
    /// Without a placement a new interface is left down and a predecessor's untouched: the toolstack's script renames
    /// the new one, which Linux before 6.2 refuses once it is up, and has set up the other already.
    /// - Throws: `.busy` if the name is taken, `.notFound` if the bridge does not exist, `.invalid` for impossible
    ///   names and numbers, `.host` for errors of the kernel.
    public func open(_ plan: InterfacePlan) throws(HostFailure) -> any PacketDevice {
        try InterfaceName.check(plan)
        let netlink = try NetlinkSocket()
        let found = try KernelNetwork.find(plan, netlink)
        let link = if let found { found } else { try KernelNetwork.create(plan, netlink) }
        do throws(HostFailure) {
            if found == nil || plan.placement != nil {
                try netlink.change(link, LinkChange(address: KernelNetwork.address, mtu: plan.mtu))
            }
            try place(link, plan, netlink)
        } catch {
            if found == nil { try? netlink.delete(link) }
            throw error
        }
        return TapDevice(link, netlink: netlink, vhost: vhost)
    }

    public func remove(_ plan: InterfacePlan) throws(HostFailure) {
        try InterfaceName.check(plan)
        let netlink = try NetlinkSocket()
        guard let link = try KernelNetwork.own(plan.owner, netlink) else { return }
        if case .openVSwitch = plan.placement { try? openVSwitch.remove(link.name) }
        try netlink.delete(link)
    }

    /// Removes what a predecessor left for that owner; no error if it is gone.
    public static func remove(owner: String) throws(HostFailure) {
        let netlink = try NetlinkSocket()
        if let link = try own(owner, netlink) { try netlink.delete(link) }
    }

    /// The interface of an owner, whatever its name.
    static func own(_ owner: String, _ netlink: borrowing NetlinkSocket) throws(HostFailure) -> Link? {
        try netlink.links().first { $0.alias == owner && $0.kind == "tun" }
    }

    /// The interfaces of this service, of present devices and of past ones.
    public static func leftovers() throws(HostFailure) -> [(name: String, owner: String)] {
        try NetlinkSocket().links()
            .filter { $0.alias.hasPrefix(ownerPrefix) && $0.kind == "tun" }
            .map { ($0.name, $0.alias) }
    }

    /// The predecessor's interface, or nil if there is none and the name is free.
    private static func find(
        _ plan: InterfacePlan,
        _ netlink: borrowing NetlinkSocket
    ) throws(HostFailure) -> Link? {
        let links = try netlink.links()
        if let own = links.first(where: { $0.alias == plan.owner && $0.kind == "tun" }) { return own }
        guard let other = links.first(where: { $0.name == plan.name }) else { return nil }
        throw HostFailure(.busy, taken: plan.name, by: other)
    }

    /// Makes a persistent interface, marked as ours before it can outlive us.
    private static func create(
        _ plan: InterfacePlan,
        _ netlink: borrowing NetlinkSocket
    ) throws(HostFailure) -> Link {
        let file = try TapQueue.create(plan.name)
        guard var link = try netlink.link(named: plan.name) else {
            throw HostFailure(.notFound, "interface \(plan.name) is gone: somebody deleted it")
        }
        try netlink.change(link, LinkChange(alias: plan.owner))
        link.alias = plan.owner
        try TapQueue.keep(file, link.name)
        return link
    }
}

extension HostFailure {
    /// The name belongs to another interface.
    init(_ kind: Kind, taken name: String, by other: Link) {
        let cure =
            other.alias.hasPrefix(KernelNetwork.ownerPrefix)
            ? "belongs to '\(other.alias)'; give one of the two cards another vifname"
            : "is not ours; rename or remove it (ip link delete \(name)), or give the card another vifname"
        self.init(kind, "interface \(name) exists already and \(cure)")
    }
}
