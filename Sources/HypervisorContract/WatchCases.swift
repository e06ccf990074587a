// Promises of XenStore's watches.

internal import Hypervisor
internal import Synchronization
internal import SystemPackage
internal import XenWire

/// Counts what a signal yields. A consumer must not be cancelled in the middle, so it lives until the signal ends.
private final class Raises: Sendable {
    let signal = WatchSignal()
    private let count = Mutex(0)
    private let slowness: Duration

    /// - Parameter slowness: how long the consumer is busy with each.
    init(slowness: Duration = .zero) {
        self.slowness = slowness
        Task {
            for await _ in signal.events {
                count.withLock { $0 += 1 }
                if slowness > .zero { try? await Task.sleep(for: slowness) }
            }
        }
    }

    var number: Int { count.withLock { $0 } }

    /// Waits until none has come for a while.
    func settled(for quiet: Duration = .milliseconds(150)) async throws -> Int {
        while true {
            let before = number
            try await Task.sleep(for: quiet)
            if number == before { return before }
        }
    }

    /// Whether there are more than `before` within five seconds.
    func grow(beyond before: Int) async throws -> Bool { try await eventually { number > before } }
}

extension HypervisorContract {
    static let watchCases: [ContractCase] = [
        ContractCase("watches: a watch is raised once at its start, even on a node that is not there") { subject in
            let raises = Raises()
            let watch = try await subject.backend.store.watch("\(subject.scratch)/none", raising: raises.signal)
            try expect(try await raises.grow(beyond: 0), "it is not raised")
            try expectEqual(try await raises.settled(), 1, "the number of raises")
            await watch.cancel()
        },
        ContractCase("watches: changes of the node and below it raise, those beside it do not") { subject in
            let store = subject.neighbour.store
            let node = "\(subject.scratch)/a"
            let raises = Raises()
            let watch = try await subject.backend.store.watch(node, raising: raises.signal)
            var before = try await raises.settled()
            for (path, value) in [(node, "1"), (node, "1"), ("\(node)/b/c", "1"), ("\(node)/b/c", "2")] {
                try await store.write(path, value)
                try expect(try await raises.grow(beyond: before), "writing \(path) does not raise it")
                before = try await raises.settled()
            }
            try await store.write("\(subject.scratch)/ab", "1")
            try await store.write("\(subject.scratch)/b", "1")
            try expectEqual(try await raises.settled(), before, "the number of raises after writing beside it")
            try await store.remove("\(node)/b")
            try expect(try await raises.grow(beyond: before), "removing a child does not raise it")
            before = try await raises.settled()
            try await store.remove(subject.scratch)
            try expect(try await raises.grow(beyond: before), "removing its parent does not raise it")
            await watch.cancel()
        },
        ContractCase("watches: the end of a transaction raises, its beginning and its failure do not") { subject in
            let node = "\(subject.scratch)/a"
            let raises = Raises()
            let watch = try await subject.backend.store.watch(node, raising: raises.signal)
            let before = try await raises.settled()
            try? await subject.neighbour.store.transaction { (store) throws(HypervisorFailure) in
                try store.write(node, "1")
                throw HypervisorFailure("give up", .invalidArgument)
            }
            try expectEqual(try await raises.settled(), before, "the number of raises after a failed transaction")
            try await subject.neighbour.store.transaction { (store) throws(HypervisorFailure) in
                try store.write(node, "1")
            }
            try expect(try await raises.grow(beyond: before), "a transaction does not raise it")
            await watch.cancel()
        },
        ContractCase("watches: ten thousand changes raise a slow watcher a few times, and the last is not lost") {
            subject in
            let node = "\(subject.scratch)/a"
            let raises = Raises(slowness: .milliseconds(200))
            let watch = try await subject.backend.store.watch(node, raising: raises.signal)
            let before = try await raises.settled(for: .milliseconds(400))
            let start = ContinuousClock.now
            try await subject.neighbour.store.perform { (store) throws(HypervisorFailure) in
                for number in 0..<10_000 { try store.write(node, String(number)) }
            }
            let took = start.duration(to: .now)
            let after = try await raises.settled(for: .milliseconds(600))
            try expect(after > before, "it is not raised")
            // One for each time the consumer was free, and one that waited for it.
            let most = Int(took / .milliseconds(200)) + 5
            try expect(after - before <= most, "it is raised \(after - before) times in \(took)")
            try await subject.neighbour.store.write(node, "last")
            try expect(try await raises.grow(beyond: after), "a change after the flood does not raise it")
            await watch.cancel()
        },
        ContractCase("watches: after its end nothing raises, and others go on") { subject in
            let node = "\(subject.scratch)/a"
            let (ended, kept) = (Raises(), Raises())
            let first = try await subject.backend.store.watch(node, raising: ended.signal)
            let second = try await subject.backend.store.watch(node, raising: kept.signal)
            try expect(try await ended.grow(beyond: 0), "the first is not raised at its start")
            try expect(try await kept.grow(beyond: 0), "the second is not raised at its start")
            let before = (try await ended.settled(), try await kept.settled())
            await first.cancel()
            await first.cancel()
            try await subject.neighbour.store.write(node, "1")
            try expect(try await kept.grow(beyond: before.1), "the other watch of the same node is not raised")
            try expectEqual(try await ended.settled(), before.0, "the number of raises after the end")
            await second.cancel()
        },
        ContractCase("watches: several raise one signal") { subject in
            let raises = Raises()
            var watches: [any Watch] = []
            for name in ["a", "b", "c"] {
                watches.append(
                    try await subject.backend.store.watch("\(subject.scratch)/\(name)", raising: raises.signal)
                )
            }
            for name in ["a", "b", "c"] {
                let before = try await raises.settled()
                try await subject.neighbour.store.write("\(subject.scratch)/\(name)", "1")
                try expect(try await raises.grow(beyond: before), "writing \(name) does not raise it")
            }
            for watch in watches { await watch.cancel() }
        },
        ContractCase("watches: domains that come and go can be watched") { subject in
            for path in ["@introduceDomain", "@releaseDomain"] {
                let raises = Raises()
                let watch = try await subject.backend.store.watch(path, raising: raises.signal)
                try expect(try await raises.grow(beyond: 0), "\(path) is not raised at its start")
                await watch.cancel()
            }
        },
    ]
}
