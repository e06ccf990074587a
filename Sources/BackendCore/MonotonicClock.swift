// Nanoseconds that only grow, for latencies and ages.

/// A monotonic clock as one number; cheap enough for twice a turn.
public enum MonotonicClock {
    private static let origin = ContinuousClock.now

    /// Nanoseconds since some moment of this process, at least 1.
    public static var nanoseconds: UInt64 {
        // Read first: it is initialised at its first use, and would otherwise be later than the time it is subtracted
        // from.
        let origin = origin
        let (seconds, attoseconds) = (ContinuousClock.now - origin).components
        return UInt64(truncatingIfNeeded: seconds) &* 1_000_000_000
            &+ UInt64(truncatingIfNeeded: attoseconds / 1_000_000_000) &+ 1
    }
}
