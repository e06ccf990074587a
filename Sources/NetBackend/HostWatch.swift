// Notices that the host has stopped taking packets: a kernel thread that hangs says nothing.

/// Looks at a port's progress at intervals, while it has packets.
struct HostWatch: Sendable {
    let patience: Duration
    /// The host has had packets for so long, and finished none.
    private(set) var isStuck = false
    private var isNews = false
    private var isTimerSet = false
    /// What the host had finished when the timer was set.
    private var before: UInt64?

    init(patience: Duration = StallTimes.usual.host) { self.patience = patience }

    /// A turn is over.
    /// - Returns: when to call `isDue`, unless a call is pending or needless.
    mutating func look(_ progress: (waiting: Int, done: UInt64)) -> Duration? {
        if isTimerSet { return nil }
        let isStill = progress.waiting > 0 && before == progress.done
        isNews = isNews || isStill && !isStuck
        isStuck = isStill
        before = progress.waiting > 0 ? progress.done : nil
        isTimerSet = progress.waiting > 0
        return isTimerSet ? patience : nil
    }

    /// The time is up; a turn and its `look` follow.
    mutating func isDue() { isTimerSet = false }

    /// Whether the host has got stuck since the last call.
    mutating func takeNews() -> Bool {
        defer { isNews = false }
        return isNews
    }

    /// The port is another one; a timer may be pending.
    mutating func isOver() {
        isStuck = false
        isNews = false
        before = nil
    }
}
