// What the toolstack specified for a network card: the backend directory's keys, read once and turned into a value.

internal import BackendCore
internal import HostNetwork
internal import XenWire

/// The toolstack's half of a card's keys (xl-network-configuration(5), libxl_nic.c).
struct NetDeviceKeys: Hashable, Sendable {
    /// Keys to read.
    static let names = [
        BusKeys.frontend, BusKeys.script, NetKeys.mac, NetKeys.mtu, NetKeys.interfaceName, NetKeys.bridge, NetKeys.vlan,
        NetKeys.ip, NetKeys.gatewayDevice, NetKeys.rate,
    ]

    /// Absolute path of the frontend's directory.
    var frontend: String
    /// The hotplug script's name, without its folder; nil: the toolstack runs none.
    var script: String?
    /// The frontend's MAC address, for reports: it is the toolstack that gives it to the guest.
    var mac: String?
    /// The name that the toolstack's script renames an interface from (vif-common.sh, `rename_vif`).
    var usualName: String
    /// The interface's final name.
    var interface: String
    var mtu: String?
    var bridge: String?
    var vlan: String?
    var addresses: [String]
    var gatewayDevice: String?
    var rate: String?

    init(_ keys: BackendNodes) {
        frontend = keys[BusKeys.frontend] ?? keys.path.frontend
        script = keys[BusKeys.script].flatMap { $0.split(separator: "/").last.map(String.init) }
        mac = keys[NetKeys.mac]
        usualName = "\(keys.path.kind)\(keys.path.kind == .vif2 ? "-" : "")\(keys.path.domain).\(keys.path.index)"
        interface = NetDeviceKeys.present(keys[NetKeys.interfaceName]) ?? usualName
        mtu = NetDeviceKeys.present(keys[NetKeys.mtu])
        bridge = NetDeviceKeys.present(keys[NetKeys.bridge])
        vlan = NetDeviceKeys.present(keys[NetKeys.vlan])
        addresses = (keys[NetKeys.ip] ?? "").split(separator: " ").map(String.init)
        gatewayDevice = NetDeviceKeys.present(keys[NetKeys.gatewayDevice])
        rate = NetDeviceKeys.present(keys[NetKeys.rate])
    }

    private static func present(_ text: String?) -> String? { text?.isEmpty ?? true ? nil : text }

    /// The interface that is asked for.
    /// - Parameter isNative: we place it, no script does.
    /// - Throws: `.invalid` for malformed keys, with how to mend them.
    func plan(owner: String, isNative: Bool) throws(BackendFailure) -> InterfacePlan {
        if let mac, MACAddress(text: mac) == nil {
            throw BackendFailure(.invalid, "mac=\(FrontendNodes.quoted(mac)) is no address like 00:16:3e:12:34:56")
        }
        return InterfacePlan(
            name: script == nil || isNative ? interface : usualName,
            owner: owner,
            mtu: try number(NetKeys.mtu, mtu, in: 68...65535) ?? 1500,
            placement: isNative ? try placement() : nil
        )
    }

    /// Where the script of that name would place it.
    private func placement() throws(BackendFailure) -> InterfacePlan.Placement? {
        switch script {
        case "vif-route", "vif-nat": return .routed(addresses: addresses, gatewayDevice: gatewayDevice)
        case "vif-openvswitch": return bridge.map { .openVSwitch($0) }
        case "vif-bridge", nil:
            guard let bridge else { return nil }
            let tag = try number(NetKeys.vlan, vlan, in: 1...4094)
            return .bridge(name: bridge, vlan: tag.map { UInt16(truncatingIfNeeded: $0) })
        case let name?:
            throw BackendFailure(
                .invalid,
                "script=\(FrontendNodes.quoted(name)) cannot be replaced by xenbackd; use vif-bridge, vif-openvswitch, "
                    + "vif-route or vif-nat, or let the toolstack run scripts (native-setup = \"never\")"
            )
        }
    }

    /// How the toolstack's script has placed the interface; nil if only the script knows.
    var scriptedPlacement: InterfacePlan.Placement? {
        // vif-nat chooses address and route itself.
        script == "vif-nat" ? nil : try? placement()
    }

    private func number(
        _ key: String,
        _ text: String?,
        in range: ClosedRange<UInt32>
    ) throws(BackendFailure) -> UInt32? {
        guard let text else { return nil }
        guard let number = UInt32(decimal: text), range.contains(number) else {
            throw BackendFailure(
                .invalid,
                "\(key)=\(FrontendNodes.quoted(text)) is not a number from \(range.lowerBound) to \(range.upperBound)"
            )
        }
        return number
    }
}
