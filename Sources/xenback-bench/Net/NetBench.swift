// The `net` subcommand: what a packet costs one processor, both ways, beside a loop in C that does the same.

internal import ArgumentParser
internal import BackendCore
internal import CBench
internal import Glibc
internal import HostIO
internal import Logging
internal import SimulatedHypervisor
internal import SystemPackage
internal import XenWire

struct NetBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "net",
        abstract: "Measure a network queue's turns: ring, grant copies, interface, answers. No events.",
        discussion: """
            A guest fills a ring, one turn empties it, on one thread; grants are pages of a memfd, and the interface is a \
            pair of sockets, so that nothing of the kernel's network is in the figures. Consumers take turns round by \
            round. Times are medians over turns, the median of the rounds; ratios medians over rounds. `copy` is measured \
            inside the turns, `host` is the same packets moved without ring and grants, `ring` is the rest. Build with \
            -c release.
            """
    )

    @Option(help: "Rounds; in each, every consumer runs.")
    var rounds = 15

    @Option(help: "Turns per round and consumer.")
    var turns = 1000

    @Flag(help: "Print JSON.")
    var json = false

    func validate() throws {
        guard (1...10_000).contains(rounds), (1...10_000_000).contains(turns) else {
            throw ValidationError("rounds and turns must be positive, and not for ever")
        }
    }

    func run() throws {
        // Before the stage's threads are there: while the runtime tells of retains, nobody may touch strings.
        try Counters.check()
        let stage = try NetStage()
        defer { stage.strike() }
        var report = Report(
            "network queue, ns per packet",
            columns: [
                "packets", "consumer", "ns", "packets/s", "of C", "ring", "copy", "host", "allocations", "objects",
                "retains", "releases",
            ]
        )
        let clock = TickClock()
        for shape in NetShape.allCases {
            for direction in NetDirection.allCases {
                let course = try NetCourse(shape, direction, stage, clock)
                for row in try course.rows(rounds: rounds, turns: turns) { report.add(row) }
            }
        }
        print(json ? report.json : report.table)
    }
}

/// As the frontend sees it.
enum NetDirection: CaseIterable {
    case transmit, receive
    var name: String { self == .transmit ? "from the guest" : "to the guest" }
}

/// A simulated host and guest in this process, and what a queue needs of a worker.
final class NetStage {
    let path: DevicePath
    let guest: SimulatedHypervisor
    let environment: WorkerEnvironment
    private let folder: FilePath
    private let machine: SimulatedMachine

    init() throws {
        guard let domain = DomainID(1) else { throw NetBroken("no domain 1") }
        path = DevicePath(kind: .vif, domain: domain, index: 0)
        folder = FilePath("/dev/shm/xenback-bench-\(getpid())")
        try Files.makeDirectory(folder, permissions: .ownerReadWriteExecute)
        machine = try SimulatedMachine()
        try machine.createDomain(domain)
        guest = try machine.hypervisor(for: domain)
        environment = WorkerEnvironment(
            hypervisor: try machine.hypervisor(for: .initial),
            domain: domain,
            controlLoop: try EventLoop(name: "control"),
            runDirectory: folder,
            logger: Logger(label: "bench") { _ in SwiftLogNoOpLogHandler() },
            dataLoopLimit: 1
        )
    }

    func strike() {
        environment.shutDown()
        environment.controlLoop.shutDown()
        for file in (try? Files.names(in: folder)) ?? [] { try? Files.remove(folder.appending(file)) }
        _ = unsafe rmdir(folder.string)
    }
}
