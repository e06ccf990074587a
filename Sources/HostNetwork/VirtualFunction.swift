// What a network card does with a virtual function (SR-IOV).

public import HostIO

/// Settings of one virtual function; nil: not known, or to be left as it is (ip-link(8), `vf`).
public struct VirtualFunction: Hashable, Sendable {
    /// Six bytes.
    public var address: [UInt8]?
    /// 1 … 4094; 0: none.
    public var vlan: UInt16?
    /// Whether the card drops packets that have another sender's address.
    public var spoofCheck: Bool?
    /// Whether the function may change its address and listen to all packets.
    public var trust: Bool?

    public init(address: [UInt8]? = nil, vlan: UInt16? = nil, spoofCheck: Bool? = nil, trust: Bool? = nil) {
        self.address = address
        self.vlan = vlan
        self.spoofCheck = spoofCheck
        self.trust = trust
    }
}

extension KernelNetwork {
    /// What the driver of a card says of one of its virtual functions.
    /// - Parameter interface: the card's own.
    /// - Returns: nil if there is no such function, or if the driver tells nothing of it.
    public static func virtualFunction(_ index: UInt32, of interface: String) throws(HostFailure) -> VirtualFunction? {
        let netlink = try NetlinkSocket()
        return try netlink.virtualFunction(index, of: try link(interface, netlink))
    }

    /// Sets what `change` names.
    /// - Throws: `.invalid` for an address that is none of one card, or a VLAN that cannot be; `.host` for what the
    ///   driver refuses.
    public static func set(
        _ change: VirtualFunction,
        ofVirtualFunction index: UInt32,
        of interface: String
    ) throws(HostFailure) {
        if let address = change.address, address.count != 6 || address[0] & 1 != 0 || address.allSatisfy({ $0 == 0 }) {
            throw HostFailure(.invalid, "a card's address has six bytes, is not all zero and begins with an even byte")
        }
        if let vlan = change.vlan, vlan > 4094 { throw HostFailure(.invalid, "a VLAN is 1 … 4094, or 0 for none") }
        let netlink = try NetlinkSocket()
        try netlink.change(virtualFunction: index, of: try link(interface, netlink), change)
    }

    private static func link(_ name: String, _ netlink: borrowing NetlinkSocket) throws(HostFailure) -> Link {
        guard let link = try netlink.link(named: name) else {
            throw HostFailure(.notFound, "there is no interface \(name)")
        }
        return link
    }
}
