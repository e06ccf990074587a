// The `contract` subcommand: what a hypervisor must do, tried here and now.

internal import ArgumentParser
internal import CLinux
internal import Glibc
internal import HostIO
internal import Hypervisor
internal import HypervisorContract
internal import SystemPackage
internal import XenHypervisor
internal import XenWire

struct Contract: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Check that a hypervisor keeps the promises of the Hypervisor protocols.",
        discussion: "On Xen, run it as root in dom0, which grants to itself. Exit status 0 if all promises are kept.",
        subcommands: [HoldEnds.self]
    )

    enum Choice: String, ExpressibleByArgument, CaseIterable { case xen }

    @Option(help: "Which hypervisor to try.")
    var hypervisor = Choice.xen

    @Option(help: "Only the cases whose name contains this.")
    var filter = ""

    @Flag(help: "Only name the cases.")
    var list = false

    func run() async throws {
        let takeover = HypervisorContract.takeoverCase(killing: HoldEnds.victim)
        let cases = (HypervisorContract.cases + [takeover]).filter { filter.isEmpty || $0.name.contains(filter) }
        if list {
            for promise in cases { print(promise.name) }
            return
        }
        let (_, failed) = await HypervisorContract.run(cases, on: try xen()) { line in print(line) }
        if failed > 0 { throw ExitCode.failure }
    }

    private func xen() throws -> HypervisorUnderTest {
        let own = try XenHypervisor()
        return HypervisorUnderTest(
            backend: own,
            frontend: own,
            neighbour: try XenHypervisor(),
            missing: try domain(0x7000),
            scratch: "/local/domain/\(own.domains.own)/data/xenback-contract"
        )
    }
}

/// The process that the takeover case kills.
struct HoldEnds: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "hold",
        abstract: "Hold a frontend's port and pages until killed.",
        shouldDisplay: false
    )

    @Option var frontend: UInt16
    @Option var port: UInt32
    @Argument var references: [UInt32]

    func run() throws {
        let ends = BackendEnds(
            frontend: try domain(frontend),
            port: EventChannelPort(port),
            references: references.map { GrantReference($0) }
        )
        try ends.hold(on: XenHypervisor())
    }

    static let victim: Victim = { ends in
        let words = ["/proc/self/exe", "contract", "hold", "--frontend", "\(ends.frontend)"]
        let more = ["--port", String(ends.port.rawValue)] + ends.references.map { String($0.rawValue) }
        let child = try ChildProcess(spawning: words + more)
        return {
            child.signal(SIGKILL)
            guard linux_is_readable(child.descriptor, 10_000), child.takeEnd() == .signalled(SIGKILL) else {
                throw ContractViolation("the victim did not die of SIGKILL")
            }
        }
    }
}

private func domain(_ number: UInt16) throws -> DomainID {
    guard let domain = DomainID(number) else { throw ValidationError("domain \(number) is reserved") }
    return domain
}
