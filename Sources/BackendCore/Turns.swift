// What is the same in the turns of all queues: how they end, who is to blame for a crash in one, and waiting for the last.

internal import Synchronization

/// How a turn of a queue ended.
public enum TurnEnd: Hashable, Sendable {
    /// Nothing waits. `worked`: there was something (if not, the event was spurious).
    case idle(worked: Bool)
    /// There is more; others of the loop first, then again.
    case more
    /// The connection cannot go on; nothing is taken any more.
    case broken(Breakdown)
}

/// Why a connection cannot go on.
public enum Breakdown: Error, Hashable, Sendable {
    /// The frontend broke its ring's rules.
    case frontend(String)
    /// Something of the host's is gone for good.
    case host(String)
}

/// Which device's code runs, told to whoever looks after the worker has crashed: one lane of the device's mark.
public struct CrashLane: Sendable {
    public let device: DeviceCrashMark?
    @usableFromInline let lane: Int

    /// - Parameter queue: nil: the device's own lane, for all that is no queue's turn.
    public init(_ device: DeviceCrashMark?, queue: Int?) {
        self.device = device
        lane = queue.map { 1 + $0 } ?? 0
    }

    /// Runs `body` marked. Scopes may be nested.
    @inlinable
    public func during<Result, Failure: Error>(_ body: () throws(Failure) -> Result) throws(Failure) -> Result {
        guard let device else { return try body() }
        let wasBusy = device.isBusy(lane: lane)
        device.begin(lane: lane)
        defer { if !wasBusy { device.end(lane: lane) } }
        return try body()
    }
}

/// Where a queue that takes no more requests waits for those in flight. Belongs to one queue.
public final class DrainGate: Sendable {
    private let waiting = Mutex<CheckedContinuation<Void, Never>?>(nil)

    public init() {}

    /// Returns at once if nothing is in flight, otherwise when `pass` is called. One caller at a time.
    public func wait(while isBusy: () -> Bool) async {
        guard isBusy() else { return }
        await withCheckedContinuation { continuation in
            // Asked again: a turn may have come before.
            if isBusy() { waiting.withLock { $0 = continuation } } else { continuation.resume() }
        }
    }

    /// Nothing is in flight any more; harmless if nobody waits.
    public func pass() {
        let waiter = waiting.withLock { waiting in
            defer { waiting = nil }
            return waiting
        }
        waiter?.resume()
    }
}
