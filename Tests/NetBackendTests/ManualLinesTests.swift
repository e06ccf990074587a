// Each form of a `vif` line that a manual has, as the keys that its toolstack writes, and what becomes of it.

internal import BackendCore
internal import HostNetwork
internal import Testing
internal import XenWire

@testable internal import NetBackend

/// A line of a configuration.
struct ManualLine: Sendable, CustomTestStringConvertible {
    let line: String
    /// In the backend's directory, beside what every card has.
    var keys: [String: String] = [:]
    /// With a script of the toolstack's.
    var name = "vif7.0"
    /// Where we place it ourselves: the final name, and how. nil: it is refused.
    var native: (name: String, InterfacePlan.Placement?)? = ("vif7.0", .bridge(name: "xenbr0", vlan: nil))
    /// In the refusal.
    var says = ""
    var mtu: UInt32 = 1500
    var rate: TransmitRate?

    var testDescription: String { "vif = [ '\(line)' ]" }

    /// libxl_nic.c, `libxl__set_xenstore_nic`, of 4.17 … 4.20; xl parses the line (xl_parse.c, `parse_nic_config`).
    static let xl: [ManualLine] = [
        ManualLine(line: ""),
        ManualLine(line: "mac=00:16:3E:74:3d:76,model=rtl8139,bridge=xenbr0", keys: ["mac": "00:16:3e:74:3d:76"]),
        ManualLine(line: "mac=00:16:3E:74:34:32", keys: ["mac": "00:16:3e:74:34:32"]),
        ManualLine(
            line: "bridge=xenbr1",
            keys: ["bridge": "xenbr1"],
            native: ("vif7.0", .bridge(name: "xenbr1", vlan: nil))
        ),
        ManualLine(line: "type=ioemu", keys: ["type": "vif_ioemu"]),
        ManualLine(line: "type=ioemu,model=e1000", keys: ["type": "vif_ioemu"]),
        ManualLine(line: "type=vif"),
        ManualLine(
            line: "vifname=web1",
            keys: ["vifname": "web1"],
            native: ("web1", .bridge(name: "xenbr0", vlan: nil))
        ),
        ManualLine(
            line: "script=vif-route,ip=192.0.2.7,gatewaydev=eth1",
            keys: ["script": "/etc/xen/scripts/vif-route", "ip": "192.0.2.7", "gatewaydev": "eth1"],
            native: ("vif7.0", .routed(addresses: ["192.0.2.7"], gatewayDevice: "eth1"))
        ),
        ManualLine(
            line: "script=vif-route,ip=192.0.2.7 192.0.2.8/32 2001:db8::7,netdev=eth1",
            keys: [
                "script": "/etc/xen/scripts/vif-route", "ip": "192.0.2.7 192.0.2.8/32 2001:db8::7",
                "gatewaydev": "eth1",
            ],
            native: (
                "vif7.0", .routed(addresses: ["192.0.2.7", "192.0.2.8/32", "2001:db8::7"], gatewayDevice: "eth1")
            )
        ),
        ManualLine(
            line: "script=/usr/local/bin/vif-mine",
            keys: ["script": "/usr/local/bin/vif-mine"],
            native: nil,
            says: "vif-mine"
        ),
        ManualLine(line: "ip=10.0.0.0/24", keys: ["ip": "10.0.0.0/24"]),
        ManualLine(
            line: "rate=10Mb/s",
            keys: ["rate": "62500,50000"],
            rate: TransmitRate(bytes: 62500, microseconds: 50_000)
        ),
        ManualLine(
            line: "rate=250KB/s",
            keys: ["rate": "12500,50000"],
            rate: TransmitRate(bytes: 12500, microseconds: 50_000)
        ),
        ManualLine(
            line: "rate=1MB/s@20ms",
            keys: ["rate": "20000,20000"],
            rate: TransmitRate(bytes: 20000, microseconds: 20_000)
        ),
        ManualLine(
            line: "rate=10Gb/s@1s",
            keys: ["rate": "1250000000,1000000"],
            rate: TransmitRate(bytes: 1_250_000_000, microseconds: 1_000_000)
        ),
        ManualLine(line: "devid=0", keys: ["handle": "0"]),
        ManualLine(line: "mtu=9000", keys: ["mtu": "9000"], mtu: 9000),
        ManualLine(line: "trusted"),
        ManualLine(line: "untrusted"),
        // xl of 4.20 writes the key, and vif-bridge of 4.20 does not read it.
        ManualLine(
            line: "vlan=10",
            keys: ["vlan": "10"],
            native: ("vif7.0", .bridge(name: "xenbr0", vlan: 10))
        ),
        ManualLine(line: "vlan=10p/20-29", keys: ["vlan": "10p/20-29"], native: nil, says: "vlan="),
        ManualLine(
            line: "script=vif-openvswitch,bridge=ovs0.10:20:30",
            keys: ["script": "/etc/xen/scripts/vif-openvswitch", "bridge": "ovs0.10:20:30"],
            native: ("vif7.0", .openVSwitch("ovs0.10:20:30"))
        ),
        ManualLine(
            line: "script=vif-nat,ip=10.2.0.2",
            keys: ["script": "/etc/xen/scripts/vif-nat", "ip": "10.2.0.2"],
            native: ("vif7.0", .routed(addresses: ["10.2.0.2"], gatewayDevice: nil))
        ),
        ManualLine(
            line: "script=colo-proxy-setup,forwarddev=eth2",
            keys: ["script": "/etc/xen/scripts/colo-proxy-setup", "forwarddev": "eth2"],
            native: nil,
            says: "colo-proxy-setup"
        ),
    ]

    /// xend/server/netif.py of Xen 3 and 4.0; xmdomain.cfg(5).
    static let xm: [ManualLine] = [
        ManualLine(line: "", keys: ["script": "/etc/xen/scripts/vif-bridge", "uuid": "a"]),
        ManualLine(
            line: "mac=00:16:3E:00:00:11, bridge=xen-br0",
            keys: ["mac": "00:16:3E:00:00:11", "bridge": "xen-br0"],
            native: ("vif7.0", .bridge(name: "xen-br0", vlan: nil))
        ),
        ManualLine(line: "type=ioemu, mac=00:16:3e:00:00:11, model=ne2k_pci", keys: ["type": "ioemu"]),
        ManualLine(line: "type=netfront", keys: ["type": "front"]),
        ManualLine(
            line: "script=vif-bridge, vifname=eth1.guest",
            keys: ["script": "vif-bridge", "vifname": "eth1.guest"],
            native: ("eth1.guest", .bridge(name: "xenbr0", vlan: nil))
        ),
        ManualLine(
            line: "ip=10.0.0.1, script=vif-nat",
            keys: ["ip": "10.0.0.1", "script": "/etc/xen/scripts/vif-nat"],
            native: ("vif7.0", .routed(addresses: ["10.0.0.1"], gatewayDevice: nil))
        ),
        ManualLine(
            line: "rate=100KB/s@50ms",
            keys: ["rate": "5000,50000"],
            rate: TransmitRate(bytes: 5000, microseconds: 50_000)
        ),
        // An accelerator that is not there is none; the frontend goes on without.
        ManualLine(line: "accel=sfc_netback", keys: ["accel": "sfc_netback"]),
        ManualLine(line: "policy=xsm, label=red", keys: ["security_label": "xsm:red"]),
    ]
}

@Suite struct ManualLinesTests {
    private func keys(_ line: ManualLine) -> NetDeviceKeys {
        let path = DevicePath(kind: .vif, domain: DomainID(7)!, index: 0)
        let usual = [
            "script": "/etc/xen/scripts/vif-bridge", "bridge": "xenbr0", "mac": "00:16:3e:00:00:01", "handle": "0",
            "type": "vif", "hotplug-status": "",
        ]
        // Only what is asked for is read.
        let values = usual.merging(line.keys) { $1 }.filter { NetDeviceKeys.names.contains($0.key) }
        return NetDeviceKeys(BackendNodes(path: path, own: .initial, values: values))
    }

    @Test(arguments: ManualLine.xl + ManualLine.xm)
    func aScriptOfTheToolstackPlacesIt(line: ManualLine) throws {
        let keys = keys(line)
        let plan = try keys.plan(owner: "x", isNative: false)
        #expect(plan == InterfacePlan(name: line.name, owner: "x", mtu: line.mtu))
        #expect(keys.interface == line.keys["vifname"] ?? "vif7.0")
        #expect(keys.rate.flatMap { TransmitRate(text: $0) } == line.rate)
    }

    /// In a driver domain, and where the settings say so.
    @Test(arguments: ManualLine.xl + ManualLine.xm)
    func wePlaceItOurselves(line: ManualLine) throws {
        guard let native = line.native else {
            let failure = #expect(throws: BackendFailure.self) { try keys(line).plan(owner: "x", isNative: true) }
            #expect(failure?.kind == .invalid && failure?.text.contains(line.says) ?? false, "\(failure as Any)")
            return
        }
        let plan = try keys(line).plan(owner: "x", isNative: true)
        #expect(
            plan == InterfacePlan(name: native.name, owner: "x", mtu: line.mtu, placement: native.1)
        )
    }
}
