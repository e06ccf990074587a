// The `net` subcommand: what a packet costs one processor, both ways, beside a loop in C that does the same.

internal import ArgumentParser
internal import CBench
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
        // Before the stage's threads are there: while the runtime counts retains, nobody may touch strings.
        try Counters.check()
        let bench = try BenchHost(in: "/dev/shm")
        defer { bench.end() }
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
                let course = try NetCourse(shape, direction, bench, clock)
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
