// How long everybody waits who asks XenStore, or the host, once more.

/// The pauses between attempts: the first is short, since most of what fails for a moment is over in milliseconds, and each
/// is twice as long as the one before, so that what fails for hours costs an attempt a second.
public struct RetryPause: Sendable {
    private static let first = Duration.milliseconds(2)
    private static let longest = Duration.seconds(1)

    private var pause = RetryPause.first

    public init() {}

    /// How long to wait before the next attempt.
    public mutating func next() -> Duration {
        defer { pause = min(pause * 2, RetryPause.longest) }
        return pause
    }
}
