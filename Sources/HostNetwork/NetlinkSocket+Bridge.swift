// Bridges and the VLANs of their ports: messages that libnl 3.7 has no calls for.

internal import CNetlink
internal import Glibc
internal import HostIO

extension NetlinkSocket {
    /// Makes a Linux bridge and brings it up, without STP, so that it forwards from its ports' first packet on.
    func addBridge(_ name: String, filtersVLANs: Bool = false) throws(HostFailure) {
        try unsafe send("bridge \(name) cannot be made", RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL) { message in
            var header = ifinfomsg()
            header.ifi_family = UInt8(AF_UNSPEC)
            unsafe nlmsg_append(message, &header, MemoryLayout<ifinfomsg>.size, CInt(NLMSG_ALIGNTO))
            unsafe nla_put_string(message, CInt(IFLA_IFNAME), name)
            let outer = unsafe nla_nest_start(message, CInt(IFLA_LINKINFO))
            unsafe nla_put_string(message, CInt(IFLA_INFO_KIND), "bridge")
            let inner = unsafe nla_nest_start(message, CInt(IFLA_INFO_DATA))
            if filtersVLANs { unsafe nla_put_u8(message, CInt(IFLA_BR_VLAN_FILTERING), 1) }
            unsafe nla_nest_end(message, inner)
            unsafe nla_nest_end(message, outer)
        }
        if let bridge = try link(named: name) { try change(bridge, LinkChange(isUp: true)) }
    }

    /// Whether a bridge filters VLANs. Kernels without CONFIG_BRIDGE_VLAN_FILTERING do not report it.
    func filtersVLANs(_ bridge: Link) throws(HostFailure) -> Bool {
        // libnl reads a bridge's own attributes only from 3.8 on.
        unsafe nl_socket_disable_auto_ack(socket)
        defer { unsafe nl_socket_enable_auto_ack(socket) }
        var header = ifinfomsg()
        header.ifi_index = bridge.index
        // SAFETY: the header is a local of this call, which copies it.
        let sent = unsafe nl_send_simple(socket, CInt(RTM_GETLINK), 0, &header, MemoryLayout<ifinfomsg>.size)
        var source = sockaddr_nl()
        var answer: UnsafeMutablePointer<UInt8>?
        // SAFETY: libnl allocates the answer and says how long it is; it is freed here.
        let count = unsafe sent < 0 ? sent : nl_recv(socket, &source, &answer, nil)
        defer { unsafe free(answer) }
        guard count > 0, let answer = unsafe answer else {
            throw HostFailure(.host, "bridge \(bridge.name): \(NetlinkSocket.text(count))")
        }
        return unsafe answer.withMemoryRebound(to: nlmsghdr.self, capacity: 1) { message in
            guard unsafe nlmsg_ok(message, count) != 0, unsafe message.pointee.nlmsg_type == RTM_NEWLINK,
                let info = unsafe nlmsg_find_attr(message, CInt(MemoryLayout<ifinfomsg>.size), CInt(IFLA_LINKINFO)),
                let data = unsafe nla_find(child(info), nla_len(info), CInt(IFLA_INFO_DATA)),
                let value = unsafe nla_find(child(data), nla_len(data), CInt(IFLA_BR_VLAN_FILTERING))
            else { return false }
            return unsafe nla_get_u8(value) != 0
        }
    }

    /// The first attribute inside another.
    @unsafe
    private func child(_ attribute: UnsafeMutablePointer<nlattr>) -> UnsafeMutablePointer<nlattr>? {
        unsafe nla_data(attribute)?.assumingMemoryBound(to: nlattr.self)
    }

    /// Makes a VLAN the port's own: untagged on the port's side, tagged inside the bridge (`bridge vlan add dev PORT vid N
    /// pvid untagged`), in place of the default one.
    func setVLAN(_ vlan: UInt16, ofPort port: Link) throws(HostFailure) {
        let flags = UInt16(NETLINK_BRIDGE_VLAN_PVID | NETLINK_BRIDGE_VLAN_UNTAGGED)
        try changeVLAN(vlan, flags, of: port, RTM_SETLINK)
        if vlan == 1 { return }
        // A new port is in VLAN 1 by the bridge's default.
        try? changeVLAN(1, 0, of: port, RTM_DELLINK)
    }

    private func changeVLAN(_ vlan: UInt16, _ flags: UInt16, of port: Link, _ type: Int) throws(HostFailure) {
        try unsafe send("VLAN \(vlan) of bridge port \(port.name)", type, 0) { message in
            var header = ifinfomsg()
            header.ifi_family = UInt8(AF_BRIDGE)
            header.ifi_index = port.index
            unsafe nlmsg_append(message, &header, MemoryLayout<ifinfomsg>.size, CInt(NLMSG_ALIGNTO))
            var facts = netlink_bridge_vlan(flags: flags, identifier: vlan)
            let outer = unsafe nla_nest_start(message, CInt(IFLA_AF_SPEC))
            unsafe nla_put(message, CInt(NETLINK_BRIDGE_VLAN_INFO), CInt(MemoryLayout.size(ofValue: facts)), &facts)
            unsafe nla_nest_end(message, outer)
        }
    }

    /// Sends a message that we built and waits for the kernel's answer.
    @unsafe
    private func send(
        _ what: String,
        _ type: Int,
        _ flags: CInt,
        _ fill: (OpaquePointer) -> Void
    ) throws(HostFailure) {
        guard let message = unsafe nlmsg_alloc_simple(CInt(type), flags) else {
            throw HostFailure(.host, "\(what): no memory")
        }
        // SAFETY: a page-sized message, larger than any made here; nl_send_sync frees it.
        unsafe fill(message)
        let status = unsafe nl_send_sync(socket, message)
        if status < 0 { throw HostFailure(.host, "\(what): \(NetlinkSocket.text(status))") }
    }
}
