// Watches where an interface is and how it is set, and undoes what others change.

internal import CLinux
internal import CNetlink
internal import Glibc
public import HostIO
internal import Synchronization

/// Keeps an interface in its place: its name, its bridge, its MTU, and that it is up.
public protocol PlaceKeeper: AnyObject, Sendable {
    /// Readable when the interface may have changed.
    var descriptor: CInt { get }
    /// Drains the descriptor. Never blocks.
    func takeNews()
    /// Checks the interface, and undoes what was changed. Blocks for as long as the kernel and `ovs-vsctl` take.
    func look() -> [PlaceReport]
}

/// What was done about one change, for the log.
public struct PlaceReport: Hashable, Sendable {
    public enum Outcome: Hashable, Sendable {
        case putBack
        /// It was changed again and again, so it is deliberate.
        case left
        case failed
        /// The interface was deleted.
        case gone
    }
    public let outcome: Outcome
    public let text: String

    public init(_ outcome: Outcome, _ text: String) {
        self.outcome = outcome
        self.text = text
    }
}

extension PacketDevice {
    /// A device without a place in the kernel has nothing to keep.
    public func keepPlace(
        named name: String?,
        _ placement: InterfacePlan.Placement?,
        mtu: UInt32?
    ) throws(HostFailure) -> (any PlaceKeeper)? { nil }
}

/// The keeper of an interface of the kernel.
final class LinkKeeper: PlaceKeeper {
    private let watch: OpenFile
    private let index: CInt
    /// How its script placed it, as far as we can do the same.
    private let placement: InterfacePlan.Placement?
    private let network: KernelNetwork
    private let state: Mutex<State>

    private struct State: ~Copyable {
        let netlink: NetlinkSocket
        var rules: PlaceRules
    }

    var descriptor: CInt { watch.descriptor }

    /// Keeps the place that the interface has now.
    init(
        _ index: CInt,
        _ placement: InterfacePlan.Placement?,
        mtuIsGiven: Bool,
        network: KernelNetwork = KernelNetwork()
    ) throws(HostFailure) {
        // The watch comes first, so that later changes are reported.
        let descriptor = HostDoor.enter(.networkConfiguration) { netlink_watch_link(index) }
        if descriptor < 0 { throw .system("changes of interfaces cannot be watched", -descriptor) }
        watch = OpenFile(adopting: descriptor)
        let netlink = try NetlinkSocket()
        guard let link = try netlink.link(index: index) else {
            throw HostFailure(.notFound, "the interface is gone: somebody deleted it")
        }
        let place = try LinkKeeper.place(of: link, netlink).place
        self.index = index
        self.placement = placement
        self.network = network
        state = Mutex(State(netlink: netlink, rules: PlaceRules(wanted: place, mtuIsGiven: mtuIsGiven)))
    }

    func takeNews() { netlink_take_news(watch.descriptor) }

    func look() -> [PlaceReport] {
        state.withLock { state in
            let present: Link?
            do throws(HostFailure) { present = try state.netlink.link(index: index) } catch { return [] }
            guard let link = present else {
                // A queue that a thread of the kernel works on does not notice by itself.
                let name = state.rules.wanted.name
                return [PlaceReport(.gone, "the interface \(name) was deleted; the device needs to be attached again")]
            }
            guard let (found, bridgeMTU) = try? LinkKeeper.place(of: link, state.netlink) else { return [] }
            let now = state.rules.wanted.bridge == found.bridge ? bridgeMTU : nil
            let former = state.rules.wanted
            var reports: [PlaceReport] = []
            for (aspect, decision) in state.rules.look(found, bridgeMTU: now, now: LinkKeeper.now) {
                let change = LinkKeeper.change(aspect, from: former, to: found)
                if decision == .leave {
                    reports.append(PlaceReport(.left, "\(change) again and again: it is left so"))
                    continue
                }
                do throws(HostFailure) {
                    try putBack(aspect, link, state.rules.wanted, state.netlink)
                    reports.append(PlaceReport(.putBack, "\(change): put back"))
                } catch {
                    reports.append(PlaceReport(.failed, "\(change), and cannot be put back: \(error)"))
                }
            }
            return reports
        }
    }

    private static func place(
        of link: Link,
        _ netlink: borrowing NetlinkSocket
    ) throws(HostFailure) -> (place: LinkPlace, bridgeMTU: UInt32?) {
        let bridge = link.master == 0 ? nil : try netlink.link(index: link.master)
        return (LinkPlace(name: link.name, bridge: bridge?.name, isUp: link.isUp, mtu: link.mtu), bridge?.mtu)
    }

    private static var now: UInt64 {
        var time = timespec()
        unsafe clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

    /// What happened, for people.
    private static func change(_ aspect: PlaceAspect, from wanted: LinkPlace, to found: LinkPlace) -> String {
        let name = wanted.name
        switch aspect {
        case .name: return "interface \(name) was renamed to \(found.name)"
        case .mtu: return "the MTU of interface \(name) was set to \(found.mtu)"
        case .link: return "interface \(name) was set \(found.isUp ? "up" : "down")"
        case .bridge:
            if let bridge = found.bridge { return "interface \(name) was made a port of \(bridge)" }
            return "interface \(name) was taken off \(wanted.bridge ?? "its bridge")"
        }
    }

    private func putBack(
        _ aspect: PlaceAspect,
        _ link: Link,
        _ wanted: LinkPlace,
        _ netlink: borrowing NetlinkSocket
    ) throws(HostFailure) {
        switch aspect {
        case .name: try rename(link, to: wanted.name, netlink)
        case .mtu: try netlink.change(link, LinkChange(mtu: wanted.mtu))
        case .bridge: try join(wanted.bridge, link, wanted.name, netlink)
        case .link:
            try netlink.change(link, LinkChange(isUp: wanted.isUp))
            // The kernel forgets routes through an interface that goes down.
            if case .routed = placement, wanted.isUp {
                try network.place(
                    link,
                    InterfacePlan(name: wanted.name, owner: link.alias, placement: placement),
                    netlink
                )
            }
        }
    }

    /// Linux before 6.2 renames no interface that is up.
    private func rename(_ link: Link, to name: String, _ netlink: borrowing NetlinkSocket) throws(HostFailure) {
        if (try? netlink.change(link, LinkChange(name: name))) != nil { return }
        guard link.isUp else { return try netlink.change(link, LinkChange(name: name)) }
        try netlink.change(link, LinkChange(isUp: false))
        defer { try? netlink.change(link, LinkChange(isUp: true)) }
        try netlink.change(link, LinkChange(name: name))
    }

    private func join(
        _ name: String?,
        _ link: Link,
        _ own: String,
        _ netlink: borrowing NetlinkSocket
    ) throws(HostFailure) {
        guard let name else { return try netlink.change(link, LinkChange(master: 0)) }
        guard let bridge = try netlink.link(named: name) else {
            throw HostFailure(.notFound, "there is no bridge \(name) any more")
        }
        // All of Open vSwitch's ports have one master, which is none of its bridges.
        if bridge.kind == "openvswitch" {
            guard case .openVSwitch(let text) = placement else {
                throw HostFailure(.notFound, "its port in Open vSwitch is not known")
            }
            return try network.openVSwitch.add(own, OpenVSwitchPort(text))
        }
        try netlink.change(link, LinkChange(master: bridge.index))
        if case .bridge(name, let vlan?) = placement { try netlink.setVLAN(vlan, ofPort: link) }
    }
}
