// Tasks and actors on a loop: where they run, and that nothing wakes an idle loop.

import Glibc
import HostIO
import Synchronization
import TestSupport
import Testing

private actor Pinned {
    nonisolated let loop: EventLoop
    nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }
    private var count = 0

    init(loop: EventLoop) { self.loop = loop }

    func increment() -> Bool {
        count += 1
        return loop.isOnLoop
    }
    func value() -> Int { count }
    func incrementAfterWaiting() async -> Bool {
        await loop.sleep(for: .milliseconds(1))
        count += 1
        return loop.isOnLoop
    }
}

private nonisolated func resumedElsewhere(_ loop: EventLoop) async -> Bool {
    await withCheckedContinuation { continuation in
        Task.detached { continuation.resume() }
    }
    return loop.isOnLoop
}

private func enterSynchronously(_ pinned: Pinned) {
    _ = pinned.assumeIsolated { $0.increment() }
}

@Suite struct EventLoopExecutorTests {
    @Test func taskWithPreferenceStaysOnTheLoop() async throws {
        try await withLoop { loop in
            let results = await Task(executorPreference: loop) {
                var results = [loop.isOnLoop]
                results.append(await resumedElsewhere(loop))
                await loop.sleep(for: .milliseconds(1))
                results.append(loop.isOnLoop)
                results.append(await loop.blocking { loop.isOnLoop })
                results.append(loop.isOnLoop)
                return results
            }.value
            #expect(results == [true, true, true, false, true])
        }
    }

    @Test func actorRunsOnItsLoop() async throws {
        try await withLoop { loop in
            let pinned = Pinned(loop: loop)
            #expect(await pinned.increment())
            #expect(await pinned.incrementAfterWaiting())
            #expect(!loop.isOnLoop)
            let entered = await loop.on { pinned.assumeIsolated { $0.increment() } }
            #expect(entered)
            #expect(await pinned.value() == 3)
        }
    }

    @Test func assumingIsolationElsewhereTraps() async {
        await #expect(processExitsWith: .failure) {
            let loop = try EventLoop(name: "test")
            let pinned = Pinned(loop: loop)
            enterSynchronously(pinned)
        }
    }

    @Test func manyThreadsEnqueue() async throws {
        try await withLoop { loop in
            let pinned = Pinned(loop: loop)
            await withTaskGroup(of: Void.self) { group in
                for _ in 0..<64 {
                    group.addTask { for _ in 0..<100 { _ = await pinned.increment() } }
                }
            }
            #expect(await pinned.value() == 6400)
        }
    }

    @Test func workIsDoneInOrder() async throws {
        try await withLoop { loop in
            let recorder = Recorder(loop: loop)
            for number in UInt32(0)..<1000 {
                loop.perform { recorder.state.withLock { $0.runs.append([Completion(slot: number, result: 0)]) } }
            }
            await loop.on {}
            #expect(recorder.all.map(\.slot) == Array(0..<1000))
        }
    }

    @Test func idleLoopIsNotWoken() async throws {
        try await withLoop { loop in
            await loop.on {}
            try await Task.sleep(for: .milliseconds(50))
            let before = loop.wakeUpCount
            try await Task.sleep(for: .milliseconds(500))
            #expect(loop.wakeUpCount == before)
            await loop.on {}
            #expect(loop.wakeUpCount > before)
        }
    }

    @Test func sleepEndsWhenTheTaskIsCancelled() async throws {
        try await withLoop { loop in
            let clock = ContinuousClock()
            let start = clock.now
            let early = Task(executorPreference: loop) { await loop.sleep(for: .seconds(60)) }
            early.cancel()
            await early.value
            let late = Task(executorPreference: loop) { await loop.sleep(for: .seconds(60)) }
            try await Task.sleep(for: .milliseconds(20))
            late.cancel()
            await late.value
            #expect(clock.now - start < .seconds(50))
        }
    }

    @Test func sleepTakesItsTime() async throws {
        try await withLoop { loop in
            let clock = ContinuousClock()
            let elapsed = await clock.measure { await loop.sleep(for: .milliseconds(30)) }
            #expect(elapsed >= .milliseconds(30))
        }
    }
}
