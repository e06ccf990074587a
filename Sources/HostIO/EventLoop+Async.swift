// Waiting, for control code that is written as tasks.

internal import Glibc
internal import Synchronization
public import SystemPackage

extension EventLoop {
    /// Suspends the task for a while, on the loop's own timer (`Task.sleep` would start Dispatch's).
    ///
    /// Returns early if the task is cancelled or the loop shuts down; look at `Task.isCancelled` afterwards.
    public func sleep(for duration: Duration) async {
        let sleeper = Sleeper(loop: self)
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                onLoop { sleeper.begin(duration, continuation) }
            }
        } onCancel: {
            perform { sleeper.end() }
        }
    }

    /// Suspends the task until `condition` holds, checking every 1 … 16 ms: for rare conditions that nothing signals.
    /// - Parameter limit: nil: no limit.
    /// - Returns: whether it holds; false too if the task is cancelled meanwhile.
    @discardableResult
    public func wait(within limit: Duration? = nil, until condition: () -> Bool) async -> Bool {
        let end = limit.map { ContinuousClock.now + $0 }
        var pause = Duration.milliseconds(1)
        while !condition() {
            if Task.isCancelled { return false }
            if let end, ContinuousClock.now >= end { return false }
            await sleep(for: pause)
            pause = min(pause * 2, .milliseconds(16))
        }
        return true
    }

    /// Sends all of `bytes` over a non-blocking socket.
    /// - Throws: the errors of send(2); `ETIMEDOUT` if the other side does not take them within `limit`.
    public func send(_ bytes: [UInt8], to socket: FileDescriptor, within limit: Duration) async throws(Errno) {
        var rest = bytes[...]
        var failure: Errno?
        let isDone = await wait(within: limit) {
            do throws(Errno) {
                rest = rest.dropFirst(try UnixSocket.send(rest, to: socket))
            } catch {
                failure = error
            }
            return rest.isEmpty || failure != nil
        }
        if let failure { throw failure }
        if !isDone { throw .timedOut }
    }

    /// Runs `work`, which may block, on a helper thread, and suspends the task until it is done.
    /// - Throws: what `work` throws.
    public func blocking<Value: Sendable, Failure: Error>(
        _ work: @escaping @Sendable () throws(Failure) -> Value
    ) async throws(Failure) -> Value {
        let result: Result<Value, Failure> = await withCheckedContinuation { continuation in
            BlockingThreads.shared.run {
                continuation.resume(returning: Result { () throws(Failure) in try work() })
            }
        }
        return try result.get()
    }

    /// Runs `work` on a helper thread as `blocking` does, and asks the caller at each `pause` whether to go on waiting:
    /// a system call that hangs cannot be cancelled, but nobody has to wait for it.
    /// - Returns: nil if `goesOn` returned false first. A later result of `work` is dropped.
    public func blocking<Result: Sendable>(
        _ work: @escaping @Sendable () -> Result,
        every pause: Duration,
        isolation: isolated (any Actor)? = #isolation,
        while goesOn: () async -> Bool
    ) async -> Result? {
        let outcome = LateOutcome<Result>()
        BlockingThreads.shared.run { outcome.put(work()) }
        while true {
            let alarm = Task(executorPreference: self) {
                await self.sleep(for: pause)
                outcome.wake()
            }
            let result = await outcome.next()
            alarm.cancel()
            if let result { return result }
            if await !goesOn() { return nil }
        }
    }

    private func onLoop(_ work: @escaping @Sendable () -> Void) {
        if isOnLoop { work() } else { perform(work) }
    }
}

/// The result of work on another thread, and the one task that waits for it or for an alarm.
private final class LateOutcome<Value: Sendable>: Sendable {
    private struct State {
        var value: Value?
        var isAwake = false
        var waiting: CheckedContinuation<Value?, Never>?
    }
    private let state = Mutex(State())

    func put(_ value: Value) { resume { $0.value = value } }
    func wake() { resume { $0.isAwake = true } }

    private func resume(_ change: (inout State) -> Void) {
        let (waiting, value) = state.withLock { state in
            change(&state)
            defer { state.waiting = nil }
            if state.waiting != nil { state.isAwake = false }
            return (state.waiting, state.value)
        }
        waiting?.resume(returning: value)
    }

    /// nil after an alarm.
    func next() async -> Value? {
        await withCheckedContinuation { continuation in
            let isReady = state.withLock { state in
                if state.value == nil, !state.isAwake {
                    state.waiting = continuation
                    return false
                }
                state.isAwake = false
                return true
            }
            if isReady { continuation.resume(returning: state.withLock { $0.value }) }
        }
    }
}

/// One suspended task and its timer.
@safe
private final class Sleeper: CompletionTarget, @unchecked Sendable {
    // SAFETY: all state belongs to the loop's thread.
    private let loop: EventLoop
    private var continuation: CheckedContinuation<Void, Never>?
    private var isOver = false
    private var id: TargetID?

    init(loop: EventLoop) { self.loop = loop }

    func begin(_ duration: Duration, _ continuation: CheckedContinuation<Void, Never>) {
        if isOver {
            continuation.resume()
            return
        }
        self.continuation = continuation
        let id = loop.attach(self)
        self.id = id
        loop.after(duration, target: id, slot: 0)
    }

    func end() {
        isOver = true
        if let id { loop.detach(id) }
        continuation?.resume()
        continuation = nil
    }

    func completed(_ completions: borrowing CompletionBatch) { end() }
}
