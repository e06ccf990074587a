// Where interfaces are put: bridges, VLANs, Open vSwitch, routes; and plans that make no sense.

import CLinux
import Foundation
import Glibc
import HostIO
import TestSupport
import Testing

@testable import HostNetwork

@Suite(.enabled(if: Namespace.isAvailable), .serialized) struct PlacementTests {
    @Test(.disabled(if: Namespace.lacksVLANs, "this kernel's bridges know no VLANs (CONFIG_BRIDGE_VLAN_FILTERING)"))
    func vlansAreKeptApart() async throws {
        try await inNamespace {
            let host = KernelNetwork()
            try NetlinkSocket().addBridge("bridge0", filtersVLANs: true)
            let devices = try [(10, "a"), (10, "b"), (20, "c")].map { vlan, name in
                try host.open(plan(name, vlan: UInt16(vlan)))
            }
            let queues = try devices.map { try $0.openQueues(1)[0] }
            #expect(queues[0].reaches(queues[1]))
            #expect(queues[2].takePlain(milliseconds: 200) == nil)
            // Untagged ports see no tags.
            _ = queues[0].put(.plain(body: [UInt8](repeating: 9, count: 60)))
            #expect(queues[1].takePlain()?.payload == [UInt8](repeating: 9, count: 60))
        }
    }

    @Test func bridgeThatTakesNoNoticeOfVLANsIsNamed() async throws {
        try await inNamespace {
            try NetlinkSocket().addBridge("bridge0")
            let refusal = failure { () throws(HostFailure) in try KernelNetwork().open(plan("a", vlan: 10)) }
            #expect(refusal?.kind == .invalid)
            #expect(refusal?.text.contains("ip link set bridge0 type bridge vlan_filtering 1") == true)
            #expect(try interface("a") == nil, "nothing half made is left")
        }
    }

    @Test func missingBridgeIsNamed() async throws {
        try await inNamespace {
            let refusal = failure { () throws(HostFailure) in try KernelNetwork().open(plan("a")) }
            #expect(refusal?.kind == .notFound)
            #expect(refusal?.text.contains("there is no bridge bridge0") == true)
            let left = try interface("a")
            #expect(left == nil)
            let other = failure { () throws(HostFailure) in try KernelNetwork().open(plan("a", bridge: "lo")) }
            #expect(other?.kind == .invalid)
        }
    }

    /// vif-route: what the host sends to the guest's address goes out of the interface, from the gateway's address.
    @Test func routedAddressIsReached() async throws {
        try await inNamespace {
            let netlink = try NetlinkSocket()
            try netlink.addBridge("uplink")
            let uplink = try #require(try interface("uplink"))
            try netlink.addAddress("192.0.2.1/24", to: uplink)
            try netlink.change(uplink, LinkChange(isUp: true))
            let placement = InterfacePlan.Placement.routed(
                addresses: ["198.51.100.7", "203.0.113.0/28"],
                gatewayDevice: "uplink"
            )
            let plan = InterfacePlan(name: "vif7.0", owner: "xenback test vif7.0", placement: placement)
            let device = try KernelNetwork().open(plan)
            let queue = try device.openQueues(1)[0]
            #expect(try String(contentsOfFile: "/proc/sys/net/ipv4/conf/vif7.0/proxy_arp", encoding: .utf8) == "1\n")
            let link = try #require(try interface("vif7.0"))
            #expect(try netlink.firstAddress(of: link) == "192.0.2.1")
            for address in ["198.51.100.7", "203.0.113.9"] {
                let asked = try #require(arpRequest(queue, for: address))
                // Sender: the gateway's address; target: the guest's.
                #expect(asked.payload[14..<18] == [192, 0, 2, 1])
            }
            // A second time, as after a restart.
            _ = try KernelNetwork().open(plan)
        }
    }

    /// Sends a datagram to an address and returns the ARP request that goes out for it.
    private func arpRequest(_ queue: PacketQueue, for address: String) -> Packet? {
        let words = address.split(separator: ".").compactMap { UInt8($0) }
        let sender = socket(AF_INET, Int32(SOCK_DGRAM.rawValue), 0)
        defer { close(sender) }
        var target = sockaddr_in()
        target.sin_family = sa_family_t(AF_INET)
        target.sin_port = UInt16(9).bigEndian
        target.sin_addr.s_addr = words.reversed().reduce(0) { $0 << 8 | UInt32($1) }
        let sent = unsafe withUnsafePointer(to: &target) {
            unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe sendto(sender, "x", 1, 0, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard sent == 1 else { return nil }
        while let packet = queue.take() {
            if packet.type == 0x806, Array(packet.payload[24..<28]) == words { return packet }
        }
        return nil
    }

    @Test func routingWantsAGatewayWithAnAddress() async throws {
        try await inNamespace {
            func refusal(_ gateway: String?) -> HostFailure? {
                let placement = InterfacePlan.Placement.routed(addresses: ["198.51.100.7"], gatewayDevice: gateway)
                let plan = InterfacePlan(name: "vif7.0", owner: "xenback test vif7.0", placement: placement)
                return failure { () throws(HostFailure) in try KernelNetwork().open(plan) }
            }
            try NetlinkSocket().addBridge("uplink")
            #expect(refusal(nil)?.text.contains("no gateway device eth0") == true)
            #expect(refusal("uplink")?.text.contains("uplink has no IPv4 address") == true)
        }
    }

    /// A program in ovs-vsctl's place writes down what it was asked for.
    @Test func openVSwitchIsAskedForAPort() async throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("ovs-\(getpid())")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let program = folder.appendingPathComponent("ovs-vsctl")
        let script =
            "#!/bin/sh\nfor word; do printf '%s\\n' \"$word\"; done >> \(folder.path)/asked\n[ \"$6\" != broken ]\n"
        try Data(script.utf8).write(to: program)
        try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: program.path)
        let host = KernelNetwork(openVSwitch: OpenVSwitch(paths: ["/nowhere/ovs-vsctl", program.path]))
        try await inNamespace {
            func plan(_ text: String) -> InterfacePlan {
                InterfacePlan(name: "vif7.0", owner: "xenback test vif7.0", placement: .openVSwitch(text))
            }
            let device = try host.open(
                plan("switch0.12:3:4 $(reboot)".replacingOccurrences(of: " $(reboot)", with: ""))
            )
            #expect(try interface(device.name)?.isUp == true)
            try host.remove(plan("switch0.12:3:4"))
            let asked = try String(contentsOf: folder.appendingPathComponent("asked"), encoding: .utf8)
            let words = asked.split(separator: "\n").map(String.init)
            #expect(
                words == [
                    "--timeout=30", "--", "--if-exists", "del-port", "vif7.0", "--", "add-port", "switch0", "vif7.0",
                    "tag=12", "trunks=3,4", "--timeout=30", "--", "--if-exists", "del-port", "vif7.0",
                ]
            )
            let missing = KernelNetwork(openVSwitch: OpenVSwitch(paths: ["/nowhere/ovs-vsctl"]))
            let refusal = failure { () throws(HostFailure) in try missing.open(plan("switch0")) }
            #expect(refusal?.kind == .notFound)
            #expect(refusal?.text.contains("install openvswitch-switch") == true)
            #expect(try interface("vif7.0") == nil)
        }
        let broken = OpenVSwitch(paths: ["/bin/false"])
        let refusal = failure { () throws(HostFailure) in try broken.remove("vif7.0") }
        #expect(refusal?.text.contains("exited with status 1") == true)
    }
}

@Suite struct PlanTests {
    private func refusal(_ plan: InterfacePlan) -> HostFailure? {
        failure { () throws(HostFailure) in try InterfaceName.check(plan) }
    }

    @Test(arguments: ["", ".", "..", "a/b", "a b", "a\tb", "a:b", "tap%d", "sixteen-bytes-xx", "bücke", "a\u{0}b"])
    func namesThatNoInterfaceHas(_ name: String) {
        #expect(refusal(plan(name, bridge: nil))?.kind == .invalid)
        #expect(refusal(plan("a", bridge: name))?.kind == .invalid)
    }

    @Test func namesThatAreFine() {
        for name in ["vif7.0", "v", "fifteen-bytes-x", "x_y-z"] { #expect(refusal(plan(name, bridge: name)) == nil) }
    }

    @Test func numbersThatMakeNoSense() {
        for vlan: UInt16 in [0, 4095, 65535] { #expect(refusal(plan("a", vlan: vlan))?.kind == .invalid) }
        for mtu: UInt32 in [0, 67, 65522, .max] { #expect(refusal(plan("a", mtu: mtu))?.kind == .invalid) }
        var long = plan("a")
        long.owner = String(repeating: "x", count: 256)
        #expect(refusal(long)?.kind == .invalid)
    }

    @Test(arguments: ["", ".5", "a.b", "a.5.6", "a:", "a:b", "a.4096", "a.-1", "a:1:", "-a", "a b", "a.+5"])
    func switchesThatAreNone(_ text: String) {
        #expect(failure { () throws(HostFailure) in try OpenVSwitchPort(text) }?.kind == .invalid)
    }

    @Test func switches() throws {
        let plain = try OpenVSwitchPort("ovs-br0")
        #expect(plain.bridge == "ovs-br0" && plain.tag == nil && plain.trunks.isEmpty)
        let both = try OpenVSwitchPort("b.7:1:4095")
        #expect(both.bridge == "b" && both.tag == 7 && both.trunks == [1, 4095])
    }
}

/// Runs the other tests of this target where this process may not make interfaces.
@Suite struct UnprivilegedTests {
    @Test(.enabled(if: !Namespace.isAvailable)) func othersPassInAUserNamespace() throws {
        let reason = Namespace.refusal.map { "\($0)" } ?? ""
        guard let end = try Namespace.rerun() else {
            print(
                "HostNetworkTests: no interfaces were made: no network namespace (\(reason)), no user namespace either"
            )
            return
        }
        #expect(end == .exited(0))
    }
}
