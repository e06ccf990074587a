// How long a dead worker's successor is delayed: not at all the first time, then longer and longer.

/// What is known about a worker's life when it is over.
struct WorkerLife: Hashable, Sendable {
    /// From its start to its end.
    var duration: Duration
    /// Did any of its devices answer a request?
    var progressed: Bool
}

/// The pauses between restarts of one worker.
struct RestartBackoff: Hashable, Sendable {
    /// A life at least this long, with progress, ends a series of deaths.
    static let progressWindow: Duration = .milliseconds(500)
    /// So does a life this long, progress or not.
    static let window: Duration = .seconds(60)

    /// Deaths in a row so far.
    private(set) var row = 0

    /// The pause before the next start. There is none after the first death of a series: a guest is waiting.
    mutating func pause(after life: WorkerLife) -> Duration {
        if life.duration >= RestartBackoff.window
            || (life.progressed && life.duration >= RestartBackoff.progressWindow)
        {
            row = 0
        }
        row = min(row + 1, 20)
        return life.progressed ? pause(longest: .milliseconds(250)) : pause(longest: .seconds(10))
    }

    /// The pause after a start that failed altogether (no binary, no memory, EAGAIN).
    mutating func pauseAfterFailedStart() -> Duration {
        row = min(row + 1, 20)
        return row == 1 ? .milliseconds(100) : pause(longest: .seconds(10))
    }

    /// 0, 50 ms, 100 ms, 200 ms … up to `longest`.
    private func pause(longest: Duration) -> Duration {
        row == 1 ? .zero : min(.milliseconds(50 << (row - 2)), longest)
    }
}
