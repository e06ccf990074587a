// Waiting, for control code that is written as tasks.

internal import Glibc

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

    /// Runs `work`, which may block, on a helper thread, and suspends the task until it is done.
    public func blocking<Result: Sendable>(_ work: @escaping @Sendable () -> Result) async -> Result {
        await withCheckedContinuation { continuation in
            BlockingThreads.shared.run { continuation.resume(returning: work()) }
        }
    }

    private func onLoop(_ work: @escaping @Sendable () -> Void) {
        if isOnLoop { work() } else { perform(work) }
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
