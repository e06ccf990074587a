// The `usb` subcommand: an URB's way from the guest's ring to a device and back, on the simulated floor.

internal import ArgumentParser
internal import FrontendDrivers
internal import HostIO
internal import SimulatedHost
internal import SystemPackage
internal import XenWire

struct USBBench: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "usb",
        abstract: "Measure the USB path: guest's ring, journal, grants, the device, answer, event.",
        discussion: """
            A guest on one thread drives a controller of ours on another, on the simulated hypervisor; the device answers \
            at once. So the figures are the way there and back, without any bus. Figures are medians over rounds; mallocs \
            are those of the whole process, guest and simulated device included. Build with -c release.
            """
    )

    @Option(help: "Rounds.")
    var rounds = 5

    @Option(help: "Milliseconds of each run.")
    var milliseconds = 1000

    @Option(help: "Only loads whose name contains this.")
    var filter = ""

    @Flag(help: "Print JSON.")
    var json = false

    func validate() throws {
        guard (1...1000).contains(rounds), (1...600_000).contains(milliseconds) else {
            throw ValidationError("rounds and milliseconds must be positive, and not for ever")
        }
    }

    func run() async throws {
        let loads = USBWorkload.all.filter { $0.name.contains(filter) }
        guard !loads.isEmpty else { throw ValidationError("no load has '\(filter)' in its name") }
        // Before the stage's threads are there: while the runtime counts retains, nobody may touch strings.
        try Counters.check()
        try await USBStage(in: "/dev/shm").play { stage in try await measure(loads, stage) }
    }

    private func measure(_ loads: [USBWorkload], _ stage: USBStage) async throws {
        var report = Report(
            "USB path",
            columns: ["load", "URBs/s", "MB/s", "p50 us", "p99 us", "ns per URB", "mallocs per URB"]
        )
        let rings = try await stage.frontend.makeRings()
        guard let port = USBPort(1) else { return }
        let pages = try await stage.frontend.makePages(USBLoad.pageCount)
        var guest = try USBLoad(rings, data: pages, port: port)
        try await stage.frontend.connect(rings)
        try guest.setUp()
        for load in loads { report.add(try measure(load, &guest)) }
        print(json ? report.json : report.table)
    }

    private func measure(_ load: USBWorkload, _ guest: inout USBLoad) throws -> [Cell] {
        let time = UInt64(milliseconds) * 1_000_000
        // Warm: mappings, tables, caches.
        _ = try guest.run(load, nanoseconds: time / 10)
        var ours: [BlockFigures] = []
        for _ in 0..<rounds { ours.append(try guest.run(load, nanoseconds: time)) }
        let rate = median(ours.map(\.perSecond))
        return [
            .text(load.name),
            .number(rate, decimals: 0),
            .number(rate * Double(load.bytes) / 1e6, decimals: 0),
            .number(median(ours.map { $0.latency(0.5) }), decimals: 1),
            .number(median(ours.map { $0.latency(0.99) }), decimals: 1),
            .number(median(ours.map(\.perRequest)), decimals: 0),
            .number(median(ours.map { Double($0.allocations) / Double($0.requests) }), decimals: 3),
        ]
    }
}
