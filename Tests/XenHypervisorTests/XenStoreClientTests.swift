// The XenStore client against a xenstored that misbehaves: gone, silent, over quota, dropping and flooding.

import Hypervisor
import Synchronization
import SystemPackage
import TestSupport
import Testing
import XenWire

@testable import XenHypervisor

private typealias Kind = StoreMessage.Kind

/// Counts what a signal yields.
private final class Counter: Sendable {
    let signal = WatchSignal()
    private let count = Mutex(0)
    init() {
        Task { for await _ in signal.events { count.withLock { $0 += 1 } } }
    }
    var number: Int { count.withLock { $0 } }
    func reaches(_ wanted: Int) async throws -> Bool { await eventually { self.number >= wanted } }
}

@Suite struct XenStoreClientTests {
    private let fake: FakeXenstored
    private let store: XenStoreClient

    init() throws {
        fake = try FakeXenstored()
        store = try XenStoreClient(paths: ["/nonexistent", fake.path], patience: .seconds(10))
    }

    @Test func readsAndWrites() async throws {
        #expect(store.own == .initial)
        try await store.write("/a", "value")
        #expect(try await store.read("/a") == "value")
        #expect(try await store.read("/b") == nil)
    }

    @Test func bytesThatAreNoTextAreNil() async throws {
        fake.set("/a", [0xFF, 0xFE, 0x41])
        #expect(try await store.read("/a") == nil)
        fake.set("/a", [])
        #expect(try await store.read("/a") == "")
    }

    @Test func pathsWithAZeroByteReachNobody() async throws {
        fake.set("/a", [0x41])
        await #expect(throws: HypervisorFailure.self) { try await store.read("/a\0b") }
        await #expect(throws: HypervisorFailure.self) { try await store.watch("", raising: WatchSignal()) }
    }

    @Test func aMessageThatIsTooLongIsNotSent() async throws {
        let before = fake.count(Kind.write)
        await #expect(throws: HypervisorFailure.self) {
            try await store.write("/a", String(repeating: "x", count: 4096))
        }
        #expect(fake.count(Kind.write) == before)
    }

    @Test func aFullXenstoredIsReported() async throws {
        fake.state.withLock { $0.refusals[Kind.write] = ["ENOSPC"] }
        let failure = await #expect(throws: HypervisorFailure.self) { try await store.write("/a", "1") }
        #expect(failure?.errno == .noSpace)
        #expect(failure?.operation == "write /a")
        #expect(fake.count(Kind.write) == 1)
    }

    @Test func aBusyXenstoredIsAskedAgain() async throws {
        fake.state.withLock { $0.refusals[Kind.write] = ["EBUSY", "EAGAIN", "EBUSY"] }
        try await store.write("/a", "1")
        #expect(fake.count(Kind.write) == 4)
        fake.state.withLock { $0.refusals[Kind.write] = Array(repeating: "EBUSY", count: 100) }
        let failure = await #expect(throws: HypervisorFailure.self) { try await store.write("/a", "1") }
        #expect(failure?.errno == .resourceBusy)
        #expect(fake.count(Kind.write) == 12)
    }

    @Test func aTransactionRunsAgainUntilItCounts() async throws {
        fake.state.withLock { $0.refusals[Kind.transactionEnd] = ["EAGAIN", "ENOENT", "EAGAIN", "ENOENT"] }
        let runs = Mutex(0)
        try await store.transaction { (_) throws(HypervisorFailure) in runs.withLock { $0 += 1 } }
        #expect(runs.withLock { $0 } == 3)
        // Each conflict ends the transaction by itself; the abort that follows is refused and does not matter.
        fake.state.withLock { $0.refusals[Kind.transactionEnd] = Array(repeating: "EAGAIN", count: 300) }
        let failure = await #expect(throws: HypervisorFailure.self) {
            try await store.transaction { (_) throws(HypervisorFailure) in runs.withLock { $0 += 1 } }
        }
        #expect(failure?.errno == .resourceTemporarilyUnavailable)
        #expect(runs.withLock { $0 } == 103)
    }

    @Test func aDroppedConnectionIsMended() async throws {
        fake.state.withLock { $0.dropAt = Kind.write }
        try await store.write("/a", "1")
        #expect(try await store.read("/a") == "1")
        #expect(fake.count(Kind.write) == 2)
    }

    @Test func aTransactionWhoseConnectionIsDroppedRunsAgain() async throws {
        fake.state.withLock { $0.dropAt = Kind.write }
        let runs = Mutex(0)
        try await store.transaction { (store) throws(HypervisorFailure) in
            runs.withLock { $0 += 1 }
            // A body that swallows failures must not be committed half.
            try? store.write("/a", "1")
            try? store.write("/b", "2")
        }
        #expect(runs.withLock { $0 } == 2)
        #expect(fake.state.withLock { $0.nodes["/a"] != nil && $0.nodes["/b"] != nil })
    }

    @Test func watchesSurviveARestart() async throws {
        let counter = Counter()
        _ = try await store.watch("/a", raising: counter.signal)
        fake.fire()
        #expect(try await counter.reaches(1))
        let before = counter.number
        fake.goAway()
        try await Task.sleep(for: .milliseconds(50))
        fake.comeBack()
        // Without any call: the store mends itself, and asks for the initial event.
        #expect(await eventually { fake.state.withLock { $0.watches.count == 1 } })
        #expect(fake.count(Kind.watch) == 2)
        fake.fire()
        #expect(try await counter.reaches(before + 1))
    }

    @Test func aRefusedWatchIsNoWatch() async throws {
        fake.state.withLock { $0.refusals[Kind.watch] = ["ENOSPC"] }
        let failure = await #expect(throws: HypervisorFailure.self) {
            try await store.watch("/a", raising: WatchSignal())
        }
        #expect(failure?.errno == .noSpace)
        fake.dropConnections()
        #expect(try await store.read("/a") == nil)
        #expect(fake.count(Kind.watch) == 1)
    }

    @Test func aWatchThatTheNewConnectionRefusesIsTriedAgain() async throws {
        let counter = Counter()
        _ = try await store.watch("/a", raising: counter.signal)
        fake.state.withLock { $0.refusals[Kind.watch] = ["ENOSPC"] }
        fake.dropConnections()
        // Raised once for what may have been missed, and again when the watch is back (after a second).
        #expect(try await counter.reaches(1))
        #expect(await eventually { fake.state.withLock { $0.watches.count == 1 } })
    }

    @Test func aCancelledWatchIsTold() async throws {
        let counter = Counter()
        let watch = try await store.watch("/a", raising: counter.signal)
        await watch.cancel()
        #expect(fake.state.withLock { $0.watches.isEmpty })
        await watch.cancel()
        #expect(fake.count(Kind.unwatch) == 1)
    }

    @Test func eventsBetweenAndBehindAnswersAreSeen() async throws {
        let counter = Counter()
        _ = try await store.watch("/a", raising: counter.signal)
        fake.state.withLock { $0.floodBeforeAnswer = 20_000 }
        fake.set("/a", [0x37])
        #expect(try await store.read("/a") == "7")
        #expect(try await counter.reaches(1))
        #expect(counter.number < 20_000)
    }

    @Test func aFrozenXenstoredHoldsUpNobodyButTheCall() async throws {
        fake.set("/a", [0x37])
        fake.state.withLock { $0.isFrozen = true }
        let start = ContinuousClock.now
        async let value = store.read("/a")
        try await Task.sleep(for: .milliseconds(200))
        fake.state.withLock { $0.isFrozen = false }
        #expect(try await value == "7")
        #expect(start.duration(to: .now) >= .milliseconds(200))
    }

    @Test func patienceEnds() async throws {
        let impatient = try XenStoreClient(paths: [fake.path], patience: .milliseconds(200))
        fake.state.withLock { $0.isFrozen = true }
        let silent = await #expect(throws: HypervisorFailure.self) { try await impatient.read("/a") }
        #expect(silent?.errno == .timedOut)
        fake.state.withLock { $0.isFrozen = false }
        #expect(try await impatient.read("/a") == nil)
        fake.goAway()
        let gone = await #expect(throws: HypervisorFailure.self) { try await impatient.read("/a") }
        #expect(gone?.operation.contains("does not answer") == true)
        fake.comeBack()
        #expect(try await impatient.read("/a") == nil)
    }

    @Test func thePlaceThatAnsweredFirstIsKept() async throws {
        let other = try FakeXenstored()
        let store = try XenStoreClient(paths: [fake.path, other.path], patience: .seconds(10))
        fake.goAway()
        async let written: Void = store.write("/a", "1")
        try await Task.sleep(for: .milliseconds(100))
        fake.comeBack()
        try await written
        #expect(fake.count(Kind.write) == 1)
        #expect(other.state.withLock { $0.requests.isEmpty })
    }

    /// Calls that queue up behind a dead xenstored fail together, not one patience after the other.
    @Test func aQueueOfCallsSharesItsPatience() async throws {
        let impatient = try XenStoreClient(paths: [fake.path], patience: .seconds(3))
        fake.goAway()
        let start = ContinuousClock.now
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<4 {
                group.addTask { await #expect(throws: HypervisorFailure.self) { try await impatient.write("/a", "1") } }
            }
        }
        let took = start.duration(to: .now)
        #expect(took >= .milliseconds(2900) && took < .seconds(11), "\(took)")
        fake.comeBack()
        try await impatient.write("/a", "1")
    }

    @Test func theLastReferenceMayGoInAJob() async throws {
        for _ in 0..<20 {
            var own: XenStoreClient? = try XenStoreClient(paths: [fake.path])
            let value = try await own?.perform { [own] (store) throws(HypervisorFailure) in
                _ = own
                return try store.read("domid")
            }
            #expect(value == "0")
            own = nil
        }
    }

    @Test func withoutXenstoredTheErrorSaysWhatToDo() {
        let failure = #expect(throws: HypervisorFailure.self) {
            try XenStoreClient(paths: ["/nonexistent/socket"])
        }
        #expect(failure?.errno == .noSuchFileOrDirectory)
        #expect(failure?.operation.contains("does not run on Xen") == true)
    }
}

@Suite struct WithoutXenTests {
    @Test func everythingSaysWhatIsMissing() {
        for attempt in [
            { () throws in _ = try XenGrantTable() }, { _ = try XenEventChannels() }, { _ = try XenHypervisor() },
        ] {
            let failure = #expect(throws: HypervisorFailure.self) { try attempt() }
            #expect(failure?.operation.contains("does not run on Xen") == true)
            #expect(failure?.operation.contains("/dev/xen/") == true)
        }
        let failure = #expect(throws: HypervisorFailure.self) {
            try XenGrantSharing().share(pageCount: 1, with: .initial, access: .readOnly)
        }
        #expect(failure?.operation.contains("gntalloc") == true)
    }
}

@Suite struct PermissionTextTests {
    @Test(arguments: ["n0", "r7", "w32751", "b1"]) func roundTrip(_ text: String) {
        #expect(XenStorePermission(text: text)?.text == text)
    }
    @Test(arguments: ["", "r", "x1", "r-1", "r65535", "r 1", "7"]) func refused(_ text: String) {
        #expect(XenStorePermission(text: text) == nil)
    }
}
