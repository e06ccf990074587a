// The `block` subcommand: the whole block path on the simulated floor, beside a plain io_uring loop on the same file.

internal import ArgumentParser
internal import FrontendDrivers
internal import HostIO
internal import SimulatedHost
internal import SystemPackage
internal import XenWire

struct BlockBench: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "block",
        abstract: "Measure the block path: guest's ring, journal, grants, file, answer, event.",
        discussion: """
            A guest on one thread drives a disk of ours on another, on the simulated hypervisor: event channels are \
            eventfds, grants are pages of a memfd. The peer is an io_uring loop in C on the same file, which has no ring, \
            no grants and no events. Both run in each round; figures are medians over rounds. Build with -c release.
            """
    )

    @Option(help: "Rounds; in each, every load runs on both.")
    var rounds = 3

    @Option(help: "Milliseconds of each run.")
    var milliseconds = 1000

    @Option(help: "MiB of the image.")
    var size = 64

    @Option(help: "Where the image is made; a file system in memory shows our own cost.")
    var directory = "/dev/shm"

    @Option(help: "Only loads whose name contains this.")
    var filter = ""

    @Flag(help: "Copy grants instead of mapping them once.")
    var copied = false

    @Flag(help: "Print JSON.")
    var json = false

    func validate() throws {
        guard (1...1000).contains(rounds), (1...600_000).contains(milliseconds), (1...65536).contains(size) else {
            throw ValidationError("rounds, milliseconds and size must be positive, and not for ever")
        }
    }

    func run() async throws {
        let loads = BlockWorkload.all.filter { $0.name.contains(filter) }
        guard !loads.isEmpty else { throw ValidationError("no load has '\(filter)' in its name") }
        try await BlockStage(in: FilePath(directory), byteCount: size << 20).play { stage in
            try await measure(loads, stage)
        }
    }

    private func measure(_ loads: [BlockWorkload], _ stage: BlockStage) async throws {
        var report = Report(
            "block path, image in \(directory), grants \(copied ? "copied" : "persistent")",
            columns: ["load", "IOPS", "MB/s", "p50 us", "p99 us", "ns", "mallocs", "io_uring IOPS", "of io_uring"]
        )
        let ring = try await stage.frontend.makeRing()
        var guest = try await BlockLoad(ring, of: stage.frontend)
        try await stage.frontend.connect([ring], adding: [(BlockKeys.featurePersistent, copied ? "0" : "1")])
        for load in loads { report.add(try measure(load, stage, &guest)) }
        print(json ? report.json : report.table)
    }

    private func measure(_ load: BlockWorkload, _ stage: BlockStage, _ guest: inout BlockLoad) throws -> [Cell] {
        let time = UInt64(milliseconds) * 1_000_000
        // Warm: mappings, tables, caches.
        _ = try guest.run(load, byteCount: stage.byteCount, nanoseconds: time / 10)
        var ours: [BlockFigures] = []
        var peers: [BlockFigures] = []
        for _ in 0..<rounds {
            ours.append(try guest.run(load, byteCount: stage.byteCount, nanoseconds: time))
            peers.append(
                try load.runPeer(stage.image.descriptor, byteCount: stage.byteCount, nanoseconds: time)
            )
        }
        let rate = median(ours.map(\.perSecond))
        return [
            .text(load.name),
            .number(rate, decimals: 0),
            .number(rate * Double(load.bytes) / 1e6, decimals: 0),
            .number(median(ours.map { $0.latency(0.5) }), decimals: 1),
            .number(median(ours.map { $0.latency(0.99) }), decimals: 1),
            .number(median(ours.map(\.perRequest)), decimals: 0),
            .number(median(ours.map { Double($0.allocations) / Double($0.requests) }), decimals: 3),
            .number(median(peers.map(\.perSecond)), decimals: 0),
            .number(median(zip(ours, peers).map { $0.perSecond / $1.perSecond })),
        ]
    }
}
