// Ports of Open vSwitch bridges, through its own program ovs-vsctl.

internal import CLinux
internal import Glibc
internal import HostIO
internal import SystemPackage

/// A bridge of Open vSwitch and how a port is to be in it, as libxl's vif-openvswitch reads the `bridge` key:
/// `name[.tag][:trunk[:trunk…]]`.
struct OpenVSwitchPort: Hashable {
    var bridge: String
    var tag: UInt16?
    var trunks: [UInt16]

    init(_ text: String) throws(HostFailure) {
        let refused = HostFailure(
            .invalid,
            "'\(text)' names no Open vSwitch bridge: write name, name.VLAN or name[.VLAN]:TRUNK[:TRUNK…], VLANs 0…4095"
        )
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        let names = (parts.first ?? "").split(separator: ".", omittingEmptySubsequences: false)
        guard names.count == 1 || names.count == 2, let name = names.first, !name.isEmpty,
            name.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7f }), !name.hasPrefix("-")
        else { throw refused }
        func vlan(_ digits: Substring) throws(HostFailure) -> UInt16 {
            guard digits.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let number = UInt16(digits), number < 4096
            else { throw refused }
            return number
        }
        bridge = String(name)
        if names.count == 2 { tag = try vlan(names[1]) }
        trunks = []
        for part in parts.dropFirst() { try trunks.append(vlan(part)) }
    }

    /// What follows `add-port`.
    func arguments(interface: String) -> [String] {
        var words = [bridge, interface]
        if let tag { words.append("tag=\(tag)") }
        if !trunks.isEmpty { words.append("trunks=" + trunks.map { "\($0)" }.joined(separator: ",")) }
        return words
    }
}

/// The program that changes Open vSwitch's configuration.
struct OpenVSwitch: Sendable {
    /// Where to look for it.
    var paths = ["/usr/bin/ovs-vsctl", "/usr/sbin/ovs-vsctl", "/bin/ovs-vsctl", "/usr/local/bin/ovs-vsctl"]
    /// How long it may take. It has a limit of its own, of 30 seconds.
    var milliseconds: CInt = 35_000

    /// Makes an interface a port, in place of whatever port it was.
    func add(_ interface: String, _ port: OpenVSwitchPort) throws(HostFailure) {
        try run(["--", "--if-exists", "del-port", interface, "--", "add-port"] + port.arguments(interface: interface))
    }

    /// Takes a port out of whatever bridge it is in.
    func remove(_ interface: String) throws(HostFailure) {
        try run(["--", "--if-exists", "del-port", interface])
    }

    private func run(_ arguments: [String]) throws(HostFailure) {
        guard let program = paths.first(where: { unsafe access($0, X_OK) == 0 }) else {
            let text = "Open vSwitch's ovs-vsctl is not in \(paths.joined(separator: ", ")); install openvswitch-switch"
            throw HostFailure(.notFound, text)
        }
        let words = [program, "--timeout=30"] + arguments
        let shown = words.joined(separator: " ")
        let process: ChildProcess
        do throws(Errno) { process = try ChildProcess(spawning: words) } catch {
            throw HostFailure(.host, "\(program) cannot be started: \(error)")
        }
        guard linux_is_readable(process.descriptor, milliseconds) else {
            process.signal(SIGKILL)
            _ = linux_is_readable(process.descriptor, 1000)
            _ = process.takeEnd()
            throw HostFailure(.host, "'\(shown)' did not end within \(milliseconds / 1000) s")
        }
        let end = process.takeEnd()
        if end != .exited(0) {
            let how = end.map { "\($0)" } ?? "did not end"
            throw HostFailure(.host, "'\(shown)' \(how); what it said is in the log of this service")
        }
    }
}
