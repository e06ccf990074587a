// Questions to the kernel about interfaces, over libnl-route.

internal import CNetlink
internal import Glibc
internal import HostIO

/// A netlink socket of the network namespace of the thread that made it. One thread uses it at a time; calls return
/// when the kernel has answered.
@safe
struct NetlinkSocket: ~Copyable, @unchecked Sendable {
    // SAFETY: a socket of libnl's, connected in init, freed in deinit; no reference to it is kept elsewhere, so that
    // it may move between threads.
    let socket: OpaquePointer

    init() throws(HostFailure) {
        guard let made = unsafe nl_socket_alloc() else { throw HostFailure(.host, "no memory for a netlink socket") }
        let status = HostDoor.enter(.networkConfiguration) { unsafe nl_connect(made, NETLINK_ROUTE) }
        guard status == 0 else {
            let text = NetlinkSocket.text(status)
            unsafe nl_socket_free(made)
            throw HostFailure(.host, "the kernel's network configuration cannot be reached: \(text)")
        }
        unsafe socket = made
    }

    deinit { unsafe nl_socket_free(socket) }

    /// The interface of that name, or nil.
    func link(named name: String) throws(HostFailure) -> Link? { try link(0, name) }

    /// The interface of that index, or nil.
    func link(index: CInt) throws(HostFailure) -> Link? { try link(index, nil) }

    private func link(_ index: CInt, _ name: String?) throws(HostFailure) -> Link? {
        var object: OpaquePointer?
        // SAFETY: libnl gives one reference to a new object, which is put back below.
        let status = unsafe rtnl_link_get_kernel(socket, index, name, &object)
        // If there is no such interface the kernel returns ENODEV, or EINVAL for an impossible name.
        if status == -NLE_OBJ_NOTFOUND || status == -NLE_NODEV { return nil }
        guard status == 0, let object = unsafe object else {
            throw HostFailure(.host, "interface \(name ?? "number \(index)"): \(NetlinkSocket.text(status))")
        }
        defer { unsafe rtnl_link_put(object) }
        return unsafe NetlinkSocket.facts(object)
    }

    /// All interfaces.
    func links() throws(HostFailure) -> [Link] {
        var cache: OpaquePointer?
        // SAFETY: libnl makes the cache, which is freed below; its objects live as long.
        let status = unsafe rtnl_link_alloc_cache(socket, AF_UNSPEC, &cache)
        guard status == 0, let cache = unsafe cache else {
            throw HostFailure(.host, "the list of interfaces: \(NetlinkSocket.text(status))")
        }
        defer { unsafe nl_cache_free(cache) }
        var links: [Link] = []
        var object = unsafe nl_cache_get_first(cache)
        while let current = unsafe object {
            unsafe links.append(NetlinkSocket.facts(current))
            unsafe object = nl_cache_get_next(current)
        }
        return links
    }

    /// Changes an interface.
    func change(_ link: Link, _ change: LinkChange) throws(HostFailure) {
        // SAFETY: two new objects, put back below; the texts and bytes passed live for the calls, which copy them.
        // libnl sends all flags, the present ones and the change: so the present ones must be the kernel's.
        var current: OpaquePointer?
        let found = unsafe rtnl_link_get_kernel(socket, link.index, nil, &current)
        guard found == 0, let current = unsafe current, let wanted = unsafe rtnl_link_alloc() else {
            throw HostFailure(.notFound, "interface \(link.name): \(NetlinkSocket.text(found))")
        }
        defer {
            unsafe rtnl_link_put(current)
            unsafe rtnl_link_put(wanted)
        }
        if let name = change.name { unsafe rtnl_link_set_name(wanted, name) }
        if let mtu = change.mtu { unsafe rtnl_link_set_mtu(wanted, mtu) }
        if let alias = change.alias { unsafe rtnl_link_set_ifalias(wanted, alias) }
        if let master = change.master { unsafe rtnl_link_set_master(wanted, master) }
        if let length = change.queueLength { unsafe rtnl_link_set_txqlen(wanted, length) }
        if let hasCarrier = change.hasCarrier { unsafe rtnl_link_set_carrier(wanted, hasCarrier ? 1 : 0) }
        if let isUp = change.isUp {
            let flag = UInt32(IFF_UP)
            if isUp { unsafe rtnl_link_set_flags(wanted, flag) } else { unsafe rtnl_link_unset_flags(wanted, flag) }
        }
        if let address = change.address {
            guard let object = unsafe nl_addr_build(AF_LLC, address, address.count) else {
                throw HostFailure(.host, "no memory to change interface \(link.name)")
            }
            unsafe rtnl_link_set_addr(wanted, object)
            unsafe nl_addr_put(object)
        }
        let status = unsafe rtnl_link_change(socket, current, wanted, 0)
        if status < 0 { throw HostFailure(.host, "interface \(link.name): \(NetlinkSocket.text(status))") }
    }

    /// Removes an interface; no error if it is gone.
    func delete(_ link: Link) throws(HostFailure) {
        guard let object = unsafe rtnl_link_alloc() else {
            throw HostFailure(.host, "no memory to delete interface \(link.name)")
        }
        // SAFETY: a new object, put back here.
        defer { unsafe rtnl_link_put(object) }
        unsafe rtnl_link_set_ifindex(object, link.index)
        let status = unsafe rtnl_link_delete(socket, object)
        if status < 0, status != -NLE_NODEV, status != -NLE_OBJ_NOTFOUND {
            throw HostFailure(.host, "interface \(link.name) cannot be deleted: \(NetlinkSocket.text(status))")
        }
    }

    /// libnl's words for one of its (negative) status values.
    static func text(_ status: CInt) -> String {
        guard let text = unsafe nl_geterror(status) else { return "error \(status)" }
        // SAFETY: a constant text of the library's.
        return unsafe String(cString: text)
    }

    @unsafe
    private static func facts(_ link: OpaquePointer) -> Link {
        func text(_ pointer: UnsafePointer<CChar>?) -> String {
            guard let pointer = unsafe pointer else { return "" }
            return unsafe String(cString: pointer)
        }
        func count(_ identifier: rtnl_link_stat_id_t) -> UInt64 { unsafe rtnl_link_get_stat(link, identifier) }
        var address: [UInt8] = []
        if let object = unsafe rtnl_link_get_addr(link), let bytes = unsafe nl_addr_get_binary_addr(object) {
            let length = Int(unsafe nl_addr_get_len(object))
            // SAFETY: the object's own bytes, as many as it says, while it lives.
            address = unsafe [UInt8](UnsafeRawBufferPointer(start: bytes, count: length))
        }
        return unsafe Link(
            index: rtnl_link_get_ifindex(link),
            name: text(rtnl_link_get_name(link)),
            alias: text(rtnl_link_get_ifalias(link)),
            kind: text(rtnl_link_get_type(link)),
            master: rtnl_link_get_master(link),
            isUp: rtnl_link_get_flags(link) & UInt32(IFF_UP) != 0,
            hasCarrier: rtnl_link_get_carrier(link) != 0,
            mtu: rtnl_link_get_mtu(link),
            address: address,
            counters: LinkCounters(
                receivedPackets: count(RTNL_LINK_RX_PACKETS),
                receivedBytes: count(RTNL_LINK_RX_BYTES),
                receivedDropped: count(RTNL_LINK_RX_DROPPED),
                sentPackets: count(RTNL_LINK_TX_PACKETS),
                sentBytes: count(RTNL_LINK_TX_BYTES),
                sentDropped: count(RTNL_LINK_TX_DROPPED)
            )
        )
    }
}
