// Names and numbers of interfaces, checked before the kernel sees them.

package import HostIO

/// Checks of values from a configuration.
package enum InterfaceName {
    /// Longest name, in bytes (IFNAMSIZ − 1).
    static let limit = 15

    /// Refuses a name that no interface can have (net/core/dev.c, `dev_valid_name`), or that the kernel would interpret
    /// as a pattern (`%d`).
    package static func check(_ name: String, what: String = "interface") throws(HostFailure) {
        let refused = "\(what) name '\(name)'"
        if name.isEmpty { throw HostFailure(.invalid, "the \(what) has no name") }
        if name.utf8.count > limit {
            throw HostFailure(.invalid, "\(refused) is longer than \(limit) bytes; choose a shorter one")
        }
        let isPlain = name.utf8.allSatisfy { byte in
            byte > 0x20 && byte < 0x7f && byte != UInt8(ascii: "/") && byte != UInt8(ascii: ":")
                && byte != UInt8(ascii: "%")
        }
        if !isPlain || name == "." || name == ".." {
            throw HostFailure(.invalid, "\(refused) is none: use printable ASCII without blanks, '/', ':' and '%'")
        }
    }

    package static func check(_ plan: InterfacePlan) throws(HostFailure) {
        try check(plan.name)
        if plan.mtu < 68 || plan.mtu > 65521 {
            throw HostFailure(.invalid, "interface \(plan.name): an MTU of \(plan.mtu) is not in 68…65521")
        }
        if plan.owner.isEmpty || plan.owner.utf8.count > 255 || plan.owner.utf8.contains(0) {
            throw HostFailure(.invalid, "interface \(plan.name): its owner must be named with 1…255 bytes")
        }
        switch plan.placement {
        case .bridge(let name, let vlan):
            try check(name, what: "bridge")
            if let vlan, vlan < 1 || vlan > 4094 {
                throw HostFailure(.invalid, "interface \(plan.name): VLAN \(vlan) is not in 1…4094")
            }
        case .openVSwitch(let text): _ = try OpenVSwitchPort(text)
        case .routed(_, let gateway): if let gateway { try check(gateway, what: "gateway device") }
        case nil: break
        }
    }
}
