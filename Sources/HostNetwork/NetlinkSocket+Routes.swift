// Addresses of interfaces and routes through them.

internal import CNetlink
internal import Glibc
internal import HostIO

extension NetlinkSocket {
    /// The first IPv4 address of an interface, in its text form, or nil.
    func firstAddress(of link: Link) throws(HostFailure) -> String? {
        var cache: OpaquePointer?
        // SAFETY: libnl makes the cache, which is freed below; its objects live as long.
        let status = unsafe rtnl_addr_alloc_cache(socket, &cache)
        guard status == 0, let cache = unsafe cache else {
            throw HostFailure(.host, "the addresses of \(link.name): \(NetlinkSocket.text(status))")
        }
        defer { unsafe nl_cache_free(cache) }
        var object = unsafe nl_cache_get_first(cache)
        while let current = unsafe object {
            if unsafe rtnl_addr_get_ifindex(current) == link.index, unsafe rtnl_addr_get_family(current) == AF_INET,
                let local = unsafe rtnl_addr_get_local(current), let bytes = unsafe nl_addr_get_binary_addr(local)
            {
                // SAFETY: an IPv4 address has four bytes.
                return unsafe UnsafeRawBufferPointer(start: bytes, count: 4).map { "\($0)" }.joined(separator: ".")
            }
            unsafe object = nl_cache_get_next(current)
        }
        return nil
    }

    /// Gives an interface an address, which it may have already: `10.0.0.1` alone, or with a prefix length.
    func addAddress(_ text: String, to link: Link) throws(HostFailure) {
        let address = try NetlinkAddress(text)
        guard let object = unsafe rtnl_addr_alloc() else { throw HostFailure(.host, "no memory for an address") }
        // SAFETY: a new object, put back here.
        defer { unsafe rtnl_addr_put(object) }
        unsafe rtnl_addr_set_ifindex(object, link.index)
        unsafe rtnl_addr_set_local(object, address.object)
        let status = unsafe rtnl_addr_add(socket, object, 0)
        if status < 0, status != -NLE_EXIST {
            throw HostFailure(.host, "address \(text) for interface \(link.name): \(NetlinkSocket.text(status))")
        }
    }

    /// Sends packets for a host or a network (`10.0.0.5`, `10.0.5.0/24`, `fd00::5`) out of an interface that is up; a
    /// route that is there already is replaced.
    /// - Parameter source: the host's own address for them, of the same family; nil: the kernel's choice.
    func setRoute(to text: String, through link: Link, source: String?, metric: UInt32) throws(HostFailure) {
        let destination = try NetlinkAddress(text)
        let preferred: NetlinkAddress?
        if let source, destination.isIPv4 { preferred = try NetlinkAddress(source) } else { preferred = nil }
        guard let route = unsafe rtnl_route_alloc(), let hop = unsafe rtnl_route_nh_alloc() else {
            throw HostFailure(.host, "no memory for a route")
        }
        // SAFETY: a new route, put back here; the hop belongs to it once it was added.
        defer { unsafe rtnl_route_put(route) }
        unsafe rtnl_route_nh_set_ifindex(hop, link.index)
        unsafe rtnl_route_add_nexthop(route, hop)
        unsafe rtnl_route_set_dst(route, destination.object)
        if let preferred { unsafe rtnl_route_set_pref_src(route, preferred.object) }
        unsafe rtnl_route_set_priority(route, metric)
        unsafe rtnl_route_set_scope(route, UInt8(RT_SCOPE_LINK.rawValue))
        let status = unsafe rtnl_route_add(socket, route, NLM_F_REPLACE)
        if status < 0 {
            throw HostFailure(.host, "route to \(text) through \(link.name): \(NetlinkSocket.text(status))")
        }
    }
}

/// An IPv4 or IPv6 address or network.
@safe
private struct NetlinkAddress: ~Copyable {
    // SAFETY: an object of libnl's with one reference, put back in deinit.
    let object: OpaquePointer

    init(_ text: String) throws(HostFailure) {
        var made: OpaquePointer?
        let status = unsafe nl_addr_parse(text, AF_UNSPEC, &made)
        guard status == 0, let made = unsafe made else {
            throw HostFailure(
                .invalid,
                "'\(text)' is no IP address or network; write 10.0.0.5, 10.0.5.0/24 or fd00::5"
            )
        }
        let family = unsafe nl_addr_get_family(made)
        guard family == AF_INET || family == AF_INET6 else {
            unsafe nl_addr_put(made)
            throw HostFailure(
                .invalid,
                "'\(text)' is no IP address or network; write 10.0.0.5, 10.0.5.0/24 or fd00::5"
            )
        }
        unsafe object = made
    }

    var isIPv4: Bool { unsafe nl_addr_get_family(object) == AF_INET }

    deinit { unsafe nl_addr_put(object) }
}
