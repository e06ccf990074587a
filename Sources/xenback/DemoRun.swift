// The demo's plot: fill the disk, work on it while processes are killed, read it all back, compare.

import FrontendDrivers
import HostIO
import SharedRing
import SimulatedHost
import Synchronization
import SystemPackage
import XenWire

#if canImport(Glibc)
    import Glibc
#endif

/// One run. Every request must succeed; a failed one ends the demo.
final class DemoRun {
    /// Blocks of one sequential request.
    private static let run = 32
    /// Sequential and random requests in flight.
    private static let (sequentialDepth, randomDepth) = (8, 16)

    private let story: DemoStory
    private let seconds: Int
    private let stage: DemoStage
    private var versions: [UInt32]
    private var phases: [DemoOutcome.Phase] = []
    private var kills: [DemoOutcome.Kill] = []
    private let start = ContinuousClock.now

    init(_ story: DemoStory, in directory: FilePath, blocks: Int, seconds: Int, logLevel: String) throws {
        self.story = story
        self.seconds = seconds
        versions = Array(repeating: 1, count: blocks)
        stage = try DemoStage(in: directory, imageBytes: blocks * DemoContent.blockSize, logLevel: logLevel)
    }

    func outcome() async throws -> DemoOutcome {
        try await stage.play { _ in try await play() }
    }

    private func play() async throws -> DemoOutcome {
        story.event("broker \(stage.broker.identifier) started; image \(stage.image)")
        let connection = try await stage.attach()
        let worker = try await stage.worker(otherThan: nil)
        story.event(
            "worker \(worker) serves the guest's xvda: \(connection.sectors / 2048) MiB, ring of \(connection.ringSize), "
                + "\(connection.maxSegments) segments, persistent grants \(connection.persistent ? "on" : "off")"
        )
        let versions = versions
        try await sequential("write 128 KiB") { [frontend = stage.frontend] first, count, pages in
            for block in 0..<count {
                let offset = block * DemoContent.blockSize
                DemoContent.fill(pages, at: offset, block: first + block, version: versions[first + block])
            }
            let begun = ContinuousClock.now
            try await frontend.write(sector: UInt64(first * 8), count: count * 8, from: pages)
            return (begun, 0)
        }
        try await withKills()
        try await stage.frontend.flush()
        let guestSum = try await readBack()
        try await stage.detach()
        story.event("the disk is detached and closed")
        let expected = try DemoContent.expectedSum(self.versions)
        let file = try DemoContent.fileSum(stage.image, blocks: self.versions.count)
        var outcome = DemoOutcome(
            phases: phases,
            kills: kills,
            expectedChecksum: String(expected, radix: 16),
            guestChecksum: String(guestSum, radix: 16),
            fileChecksum: String(file, radix: 16),
            seconds: 0
        )
        outcome.add(try await DemoNetwork(story, stage).chapter(of: .seconds(min(seconds, 6)) / 2))
        outcome.add(try await DemoUSB(story, stage).chapter(of: .seconds(min(seconds, 6)) / 2))
        outcome.seconds = Double((ContinuousClock.now - start).microseconds) / 1_000_000
        return outcome
    }

    // MARK: the whole disk in order

    /// Runs `body` for each run of blocks; it returns when its request began and how many blocks were wrong.
    private func sequential(
        _ name: String,
        _ body:
            @escaping @Sendable (_ first: Int, _ count: Int, PrivatePages) async throws -> (
                ContinuousClock.Instant, Int
            )
    ) async throws {
        let meter = DemoMeter(name)
        let blocks = versions.count
        try await withThrowingTaskGroup(of: Void.self) { group in
            for lane in 0..<Self.sequentialDepth {
                group.addTask {
                    let pages = try PrivatePages(byteCount: Self.run * DemoContent.blockSize)
                    for first in stride(from: lane * Self.run, to: blocks, by: Self.sequentialDepth * Self.run) {
                        let count = min(Self.run, blocks - first)
                        let (begun, wrong) = try await body(first, count, pages)
                        meter.completed(count * DemoContent.blockSize, since: begun, wrong: wrong)
                    }
                }
            }
            try await group.waitForAll()
        }
        record(meter)
    }

    private func readBack() async throws -> UInt64 {
        let versions = versions
        let sum = Atomic<UInt64>(0)
        try await sequential("read 128 KiB") { [frontend = stage.frontend] first, count, pages in
            let begun = ContinuousClock.now
            try await frontend.read(sector: UInt64(first * 8), count: count * 8, into: pages)
            var wrong = 0
            for block in first..<first + count {
                let offset = (block - first) * DemoContent.blockSize
                if !DemoContent.matches(pages, at: offset, block: block, version: versions[block]) { wrong += 1 }
                sum.wrappingAdd(DemoContent.sum(pages, at: offset, block: block), ordering: .relaxed)
            }
            return (begun, wrong)
        }
        return sum.load(ordering: .relaxed)
    }

    private func record(_ meter: DemoMeter) {
        let figures = meter.figures()
        phases.append(figures)
        let wrong = figures.wrongBlocks == 0 ? "" : ", \(figures.wrongBlocks) BLOCKS WRONG"
        story.event("\(figures.name): \(figures.requests) requests done\(wrong)")
    }

    // MARK: random work under kills

    private func withKills() async throws {
        let meter = DemoMeter("random 4 KiB, killed")
        let end = ContinuousClock.now + .seconds(seconds)
        story.event("random reads and writes of 4 KiB, \(Self.randomDepth) at a time, each verified")
        let lanes = Self.lanes(stage.frontend, versions, until: end, meter)
        do {
            let times = try await killInTurn(end)
            let changed = try await lanes.value
            for (block, version) in changed { versions[block] = version }
            for (index, (process, time)) in times.enumerated() {
                let next = index + 1 < times.count ? times[index + 1].1 : .now
                let pause = meter.pause(from: time, to: next)
                kills.append(.init(process: process, pauseMicroseconds: pause.microseconds))
            }
        } catch {
            lanes.cancel()
            throw error
        }
        record(meter)
    }

    /// Starts all lanes; the value is the blocks they changed, with their versions.
    private static func lanes(
        _ frontend: BlockFrontend,
        _ before: [UInt32],
        until end: ContinuousClock.Instant,
        _ meter: DemoMeter
    ) -> Task<[Int: UInt32], any Error> {
        Task {
            var changed: [Int: UInt32] = [:]
            try await withThrowingTaskGroup(of: [Int: UInt32].self) { group in
                for lane in 0..<randomDepth {
                    group.addTask { try await work(frontend, lane, before, until: end, meter) }
                }
                for try await versions in group { changed.merge(versions) { _, new in new } }
            }
            return changed
        }
    }

    /// Works on the blocks that are this lane's alone, so that it knows what each of its reads must find.
    private static func work(
        _ frontend: BlockFrontend,
        _ lane: Int,
        _ before: [UInt32],
        until end: ContinuousClock.Instant,
        _ meter: DemoMeter
    ) async throws -> [Int: UInt32] {
        let pages = try PrivatePages(byteCount: DemoContent.blockSize)
        var versions: [Int: UInt32] = [:]
        let mine = before.count / randomDepth
        while ContinuousClock.now < end {
            let block = Int.random(in: 0..<mine) * randomDepth + lane
            let version = versions[block] ?? before[block]
            var wrong = 0
            let begun: ContinuousClock.Instant
            if Bool.random() {
                DemoContent.fill(pages, at: 0, block: block, version: version + 1)
                begun = .now
                try await frontend.write(sector: UInt64(block * 8), count: 8, from: pages)
                versions[block] = version + 1
            } else {
                begun = .now
                try await frontend.read(sector: UInt64(block * 8), count: 8, into: pages)
                if !DemoContent.matches(pages, at: 0, block: block, version: version) { wrong = 1 }
            }
            meter.completed(DemoContent.blockSize, since: begun, wrong: wrong)
        }
        return versions
    }

    /// Kills the worker, the broker, and the worker again, in equal steps of the time there is.
    private func killInTurn(_ end: ContinuousClock.Instant) async throws -> [(String, ContinuousClock.Instant)] {
        let step = (end - .now) / 4
        try await Task.sleep(for: step)
        let first = try await stage.killWorker(story, "requests in flight")
        try await Task.sleep(for: step)
        let second = ContinuousClock.now
        let broker = stage.broker.identifier
        stage.broker.signal(SIGKILL)
        _ = try await stage.brokerEnd()
        story.event("broker \(broker) killed with SIGKILL; the worker goes on without it")
        try stage.startBroker()
        story.event("broker \(stage.broker.identifier) started, as systemd would; it adopts the worker")
        try await Task.sleep(for: step)
        let third = try await stage.killWorker(story, "requests in flight")
        return [("worker", first), ("broker", second), ("worker", third)]
    }
}
