// Where an interface belongs in the host, set up as libxl's scripts of the same names do it.

internal import HostIO
internal import SystemPackage

extension KernelNetwork {
    /// Puts an interface in its place and brings it up. Idempotent.
    func place(_ link: Link, _ plan: InterfacePlan, _ netlink: borrowing NetlinkSocket) throws(HostFailure) {
        switch plan.placement {
        case nil: return
        case .bridge(let name, let vlan): try bridge(link, name, vlan, netlink)
        case .openVSwitch(let text):
            let port = try OpenVSwitchPort(text)
            withoutOwnAddress(link)
            try openVSwitch.add(link.name, port)
            try netlink.change(link, LinkChange(isUp: true))
        case .routed(let addresses, let gateway): try route(link, addresses, gateway, netlink)
        }
    }

    /// vif-bridge: a port of a bridge, with no address of its own.
    private func bridge(
        _ link: Link,
        _ name: String,
        _ vlan: UInt16?,
        _ netlink: borrowing NetlinkSocket
    ) throws(HostFailure) {
        guard let bridge = try netlink.link(named: name) else {
            let text = "there is no bridge \(name); make it (ip link add name \(name) type bridge) or name another one"
            throw HostFailure(.notFound, text)
        }
        if bridge.kind == "openvswitch" {
            throw HostFailure(.invalid, "\(name) is a bridge of Open vSwitch: use script=vif-openvswitch")
        }
        if bridge.kind != "bridge" { throw HostFailure(.invalid, "interface \(name) is no bridge") }
        if vlan != nil, try !netlink.filtersVLANs(bridge) {
            let cure = "ip link set \(name) type bridge vlan_filtering 1"
            throw HostFailure(
                .invalid,
                "bridge \(name) does not filter VLANs; enable that (\(cure)) or leave out vlan"
            )
        }
        withoutOwnAddress(link)
        if link.master != bridge.index { try netlink.change(link, LinkChange(master: bridge.index)) }
        if let vlan { try netlink.setVLAN(vlan, ofPort: link) }
        try netlink.change(link, LinkChange(isUp: true))
    }

    /// vif-route: a route to each address; the host answers ARP for them, and uses the gateway device's address as its
    /// own.
    private func route(
        _ link: Link,
        _ addresses: [String],
        _ gateway: String?,
        _ netlink: borrowing NetlinkSocket
    ) throws(HostFailure) {
        let gateway = gateway ?? "eth0"
        guard let uplink = try netlink.link(named: gateway) else {
            throw HostFailure(.notFound, "there is no gateway device \(gateway); name another one with gatewaydev")
        }
        guard let own = try netlink.firstAddress(of: uplink) else {
            let text = "gateway device \(gateway) has no IPv4 address; give it one or name another with gatewaydev"
            throw HostFailure(.notFound, text)
        }
        if link.master != 0 { try netlink.change(link, LinkChange(master: 0)) }
        try netlink.addAddress(own, to: link)
        try netlink.change(link, LinkChange(isUp: true))
        do throws(Errno) { try Files.write("1", to: FilePath("/proc/sys/net/ipv4/conf/\(link.name)/proxy_arp")) } catch
        {
            throw HostFailure(.host, "proxy ARP of interface \(link.name): \(error)")
        }
        for address in addresses { try netlink.setRoute(to: address, through: link, source: own, metric: 2) }
    }

    /// A bridge port needs no IPv6 address. A kernel without IPv6 gives it none anyway.
    private func withoutOwnAddress(_ link: Link) {
        try? Files.write("1", to: FilePath("/proc/sys/net/ipv6/conf/\(link.name)/addr_gen_mode"))
    }
}
