// The `contract` subcommand: what a hypervisor must do, tried here and now.

internal import ArgumentParser
internal import CLinux
internal import Glibc
internal import HostIO
internal import Hypervisor
internal import HypervisorContract
internal import SimulatedHypervisor
internal import SystemPackage
internal import XenHypervisor
internal import XenWire

struct Contract: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Check that a hypervisor keeps the promises of the Hypervisor protocols.",
        discussion: "On Xen, run it as root in dom0, which grants to itself. Exit status 0 if all promises are kept.",
        subcommands: [HoldEnds.self]
    )

    enum Choice: String, ExpressibleByArgument, CaseIterable { case xen, simulation }

    @Option(help: "Which hypervisor to try.")
    var hypervisor = Choice.simulation

    @Option(help: "Only the cases whose name contains this.")
    var filter = ""

    @Flag(help: "Only name the cases.")
    var list = false

    func run() async throws {
        if list {
            for promise in HypervisorContract.cases { print(promise.name) }
            return
        }
        switch hypervisor {
        case .simulation:
            let machine = try SimulatedMachine()
            let path = "/tmp/xenback-contract-\(getpid())"
            try machine.listen(at: path)
            defer { unsafe unlink(path) }
            let guest = try domain(1)
            try machine.createDomain(guest)
            try await check(
                machine.hypervisor(for: .initial),
                machine.hypervisor(for: guest),
                machine.hypervisor(for: .initial),
                victim: HoldEnds.victim(attaching: path)
            )
        case .xen:
            let own = try XenHypervisor()
            try await check(own, own, XenHypervisor(), victim: HoldEnds.victim(attaching: nil))
        }
    }

    private func check(
        _ backend: any Hypervisor,
        _ frontend: any Hypervisor,
        _ neighbour: any Hypervisor,
        victim: @escaping Victim
    ) async throws {
        let subject = HypervisorUnderTest(
            backend: backend,
            frontend: frontend,
            neighbour: neighbour,
            missing: try domain(0x7000),
            scratch: "/local/domain/\(backend.domains.own)/data/xenback-contract"
        )
        let all = HypervisorContract.cases + [HypervisorContract.takeoverCase(killing: victim)]
        let cases = all.filter { filter.isEmpty || $0.name.contains(filter) }
        let (_, failed) = await HypervisorContract.run(cases, on: subject) { line in
            // Unbuffered: what hangs or dies must be the case after the last line.
            _ = try? FileDescriptor.standardOutput.writeAll((line + "\n").utf8)
        }
        if failed > 0 { throw ExitCode.failure }
    }
}

/// The process that the takeover case kills.
struct HoldEnds: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "hold",
        abstract: "Hold a frontend's port and pages until killed.",
        shouldDisplay: false
    )

    @Option var machine: String?
    @Option var frontend: UInt16
    @Option var port: UInt32
    @Argument var references: [UInt32]

    func run() throws {
        let ends = BackendEnds(
            frontend: try domain(frontend),
            port: EventChannelPort(port),
            references: references.map { GrantReference($0) }
        )
        if let machine {
            try ends.hold(on: SimulatedHypervisor(attaching: machine, as: .initial))
        } else {
            try ends.hold(on: XenHypervisor())
        }
    }

    /// - Parameter machine: the socket of the simulated machine; nil on Xen.
    static func victim(attaching machine: String?) -> Victim {
        { ends in
            var words = ["/proc/self/exe", "contract", "hold"]
            if let machine { words += ["--machine", machine] }
            words += ["--frontend", "\(ends.frontend)", "--port", String(ends.port.rawValue)]
            let child = try ChildProcess(spawning: words + ends.references.map { String($0.rawValue) })
            return {
                child.signal(SIGKILL)
                guard linux_is_readable(child.descriptor, 10_000), child.takeEnd() == .signalled(SIGKILL) else {
                    throw ContractViolation("the victim did not die of SIGKILL")
                }
            }
        }
    }
}

private func domain(_ number: UInt16) throws -> DomainID {
    guard let domain = DomainID(number) else { throw ValidationError("domain \(number) is reserved") }
    return domain
}
