// Virtual functions of a network card (SR-IOV), as the card's own driver sets them.

internal import CNetlink
internal import Glibc
internal import HostIO

extension NetlinkSocket {
    /// What the driver says of virtual function `index`; nil if there is no such one, or no such driver.
    func virtualFunction(_ index: UInt32, of link: Link) throws(HostFailure) -> VirtualFunction? {
        var object: OpaquePointer?
        // SAFETY: libnl gives one reference to a new object, which is put back below.
        let status = unsafe rtnl_link_get_kernel(socket, link.index, nil, &object)
        guard status == 0, let object = unsafe object else {
            throw HostFailure(.notFound, "interface \(link.name): \(NetlinkSocket.text(status))")
        }
        defer { unsafe rtnl_link_put(object) }
        // SAFETY: a reference of its own, given back here.
        guard let function = unsafe rtnl_link_vf_get(object, index) else { return nil }
        defer { unsafe rtnl_link_vf_put(function) }
        return unsafe NetlinkSocket.facts(function)
    }

    @unsafe
    private static func facts(_ function: OpaquePointer) -> VirtualFunction {
        var facts = VirtualFunction()
        var address: OpaquePointer?
        // SAFETY: the getters write into locals; what they point to belongs to the function, which the caller holds.
        if unsafe rtnl_link_vf_get_addr(function, &address) == 0, let object = unsafe address,
            let bytes = unsafe nl_addr_get_binary_addr(object)
        {
            let length = min(Int(unsafe nl_addr_get_len(object)), 6)
            facts.address = unsafe [UInt8](UnsafeRawBufferPointer(start: bytes, count: length))
        }
        var vlans: UnsafeMutablePointer<nl_vf_vlans_t>?
        if unsafe rtnl_link_vf_get_vlans(function, &vlans) == 0, let vlans = unsafe vlans {
            if unsafe vlans.pointee.size > 0, let first = unsafe vlans.pointee.vlans?.pointee.vf_vlan {
                facts.vlan = UInt16(truncatingIfNeeded: first)
            }
        }
        var flag: UInt32 = 0
        if unsafe rtnl_link_vf_get_spoofchk(function, &flag) == 0 { facts.spoofCheck = flag != 0 }
        if unsafe rtnl_link_vf_get_trust(function, &flag) == 0 { facts.trust = flag != 0 }
        return facts
    }

    /// Sets what `change` names; nil is left as it is.
    func change(virtualFunction index: UInt32, of link: Link, _ change: VirtualFunction) throws(HostFailure) {
        var current: OpaquePointer?
        // SAFETY: objects of libnl's, each put back where it was made; it copies what it is given.
        let found = unsafe rtnl_link_get_kernel(socket, link.index, nil, &current)
        guard found == 0, let current = unsafe current else {
            throw HostFailure(.notFound, "interface \(link.name): \(NetlinkSocket.text(found))")
        }
        defer { unsafe rtnl_link_put(current) }
        let noMemory = HostFailure(.host, "virtual function \(index) of \(link.name): no memory")
        guard let wanted = unsafe rtnl_link_alloc() else { throw noMemory }
        defer { unsafe rtnl_link_put(wanted) }
        guard let function = unsafe rtnl_link_vf_alloc() else { throw noMemory }
        defer { unsafe rtnl_link_vf_put(function) }
        unsafe rtnl_link_vf_set_index(function, index)
        if let address = change.address {
            guard let object = unsafe nl_addr_build(AF_LLC, address, address.count) else { throw noMemory }
            unsafe rtnl_link_vf_set_addr(function, object)
            unsafe nl_addr_put(object)
        }
        var vlans: UnsafeMutablePointer<nl_vf_vlans_t>?
        defer { if let list = unsafe vlans { unsafe rtnl_link_vf_vlan_put(list) } }
        if let vlan = change.vlan {
            guard unsafe rtnl_link_vf_vlan_alloc(&vlans, 1) == 0, let list = unsafe vlans else { throw noMemory }
            unsafe list.pointee.vlans.pointee.vf_vlan = UInt32(vlan)
            unsafe list.pointee.vlans.pointee.vf_vlan_proto = UInt16(ETH_P_8021Q)
            unsafe rtnl_link_vf_set_vlans(function, list)
        }
        if let isOn = change.spoofCheck { unsafe rtnl_link_vf_set_spoofchk(function, isOn ? 1 : 0) }
        if let isOn = change.trust { unsafe rtnl_link_vf_set_trust(function, isOn ? 1 : 0) }
        unsafe rtnl_link_vf_add(wanted, function)
        let status = unsafe rtnl_link_change(socket, current, wanted, 0)
        if status < 0 {
            throw HostFailure(.host, "virtual function \(index) of \(link.name): \(NetlinkSocket.text(status))")
        }
    }
}
