// The `ring` subcommand: what a turn of the ring costs, beside a loop in C that does the same.

internal import ArgumentParser
internal import CBench
internal import XenWire

struct RingBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ring",
        abstract: "Measure a ring turn: consume, copy out, decode, validate, answer, publish. No I/O.",
        discussion: """
            A frontend fills a one-page ring of 32 requests; each consumer in turn empties it. Consumers take turns \
            round by round; times are medians over turns, ratios medians over rounds. Build with -c release.
            """
    )

    @Option(help: "Rounds; in each, every consumer runs.")
    var rounds = 15

    @Option(help: "Turns of 32 requests per round and consumer.")
    var turns = 4000

    @Option(help: "The frontend's ABI: x86_32-abi, x86_64-abi or arm-abi.")
    var abi = BlockABI.x86_64.rawValue

    @Flag(help: "Print JSON.")
    var json = false

    func validate() throws {
        guard BlockABI(rawValue: abi) != nil else { throw ValidationError("no such ABI: \(abi)") }
        guard (1...10_000).contains(rounds), (1...10_000_000).contains(turns) else {
            throw ValidationError("rounds and turns must be positive, and not for ever")
        }
    }

    func run() throws {
        var report = Report(
            "ring turn, ns per request",
            columns: [
                "requests", "consumer", "ns", "of C", "allocations", "objects", "retains", "releases",
            ]
        )
        let clock = TickClock()
        for mix in RingMix.allCases { try measure(mix, clock, &report) }
        print(json ? report.json : report.table)
    }

    private func measure(_ mix: RingMix, _ clock: TickClock, _ report: inout Report) throws {
        let abi = BlockABI(rawValue: abi) ?? .native
        var c = try RingTrack<CConsumer>(mix, abi)
        var swift = try RingTrack<SwiftConsumer>(mix, abi)
        var journal = try RingTrack<JournalConsumer>(mix, abi)
        for _ in 0..<rounds {
            try c.measure(turns, clock)
            try swift.measure(turns, clock)
            try journal.measure(turns, clock)
        }
        let base = c.rounds
        try Counters.check()
        report.add(try c.row(mix, base))
        report.add(try swift.row(mix, base))
        report.add(try journal.row(mix, base))
    }
}

/// One consumer, its frontend, and what it took in each round.
private struct RingTrack<Consumer: RingConsumer & ~Copyable>: ~Copyable {
    var load: RingLoad
    var consumer: Consumer
    /// Nanoseconds per request, one for each round.
    var rounds: [Double] = []
    private var ticks: [UInt64] = []

    init(_ mix: RingMix, _ abi: BlockABI) throws {
        let load = try RingLoad(mix, abi: abi)
        let consumer = try Consumer(load)
        self.load = load
        self.consumer = consumer
    }

    mutating func measure(_ turns: Int, _ clock: TickClock) throws {
        ticks.removeAll(keepingCapacity: true)
        ticks.reserveCapacity(turns)
        for _ in 0..<turns {
            load.fill()
            let start = bench_ticks()
            let answered = try consumer.turn()
            ticks.append(bench_ticks() &- start)
            guard answered == load.batch, try load.check() else { throw RingBroken(consumer: Consumer.name) }
        }
        rounds.append(clock.nanoseconds(median(ticks)) / Double(load.batch))
    }

    /// Runs a thousand turns more with everything counted.
    mutating func row(_ mix: RingMix, _ base: [Double]) throws -> [Cell] {
        let counted = 1000
        var counters = Counters()
        for _ in 0..<counted {
            load.fill()
            var answered = 0
            try counters.count { answered = try consumer.turn() }
            guard answered == load.batch else { throw RingBroken(consumer: Consumer.name) }
            guard try load.check() else { throw RingBroken(consumer: Consumer.name) }
        }
        let requests = Double(counted * load.batch)
        let ratios = zip(rounds, base).map { $0 / $1 }
        return [
            .text(mix.name), .text(Consumer.name), .number(median(rounds)), .number(median(ratios)),
            .number(Double(counters.allocations) / requests, decimals: 3),
            .number(Double(counters.objects) / requests, decimals: 3),
            .number(Double(counters.retains) / requests, decimals: 3),
            .number(Double(counters.releases) / requests, decimals: 3),
        ]
    }
}

/// A consumer that does not answer right is not measured.
struct RingBroken: Error, CustomStringConvertible {
    let consumer: String
    var description: String { "\(consumer) did not answer each request, in order, with okay" }
}

/// Turns ticks into nanoseconds, less what reading the counter twice costs.
struct TickClock {
    private let perTick: Double
    private let overhead: UInt64

    init() {
        let clock = ContinuousClock()
        let (start, ticks) = (clock.now, bench_ticks())
        while clock.now - start < .milliseconds(50) {}
        let (elapsed, passed) = (clock.now - start, bench_ticks() &- ticks)
        perTick = Double(elapsed.components.attoseconds) / 1e9 / Double(passed)
        overhead = median(
            (0..<1001).map { _ in
                let start = bench_ticks()
                return bench_ticks() &- start
            }
        )
    }

    func nanoseconds(_ ticks: UInt64) -> Double { Double(ticks > overhead ? ticks &- overhead : 0) * perTick }
}
