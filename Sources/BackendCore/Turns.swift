// What the turns of all queues have in common: how they end, how a crash in one is attributed, how a drain waits.

internal import Synchronization

/// How a turn of a queue ended.
public enum TurnEnd: Hashable, Sendable {
    /// Nothing is waiting. `worked`: there was work (if not, the event was spurious).
    case idle(worked: Bool)
    /// There is more; the queue gets another turn after the others on its loop.
    case more
    /// The connection is broken; nothing more is taken.
    case broken(Breakdown)
}

/// Why a connection is broken.
public enum Breakdown: Error, Hashable, Sendable {
    /// The frontend broke its ring's rules.
    case frontend(String)
    /// A host resource is gone for good.
    case host(String)
}

/// Records which device's code is running, for whoever looks after a crash of the worker: one lane of the device's
/// mark.
public struct CrashLane: Sendable {
    public let device: DeviceCrashMark?
    @usableFromInline let lane: Int

    /// - Parameter queue: nil for the device's own lane: everything but the turns of queues.
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
