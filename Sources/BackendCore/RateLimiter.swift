// Keeps a frontend from making us log without limit (XSA-43).

/// A token bucket: `burst` at once, then one per `interval`. Refused lines are counted, so that the next one that
/// passes can say how many were left out.
public struct RateLimiter: Sendable {
    private let burst: UInt32
    private let interval: Duration
    private var tokens: UInt32
    private var lastRefill: ContinuousClock.Instant
    private var suppressed: UInt64 = 0

    public init(burst: UInt32 = 5, interval: Duration = .seconds(10), now: ContinuousClock.Instant = .now) {
        self.burst = burst
        self.interval = interval
        tokens = burst
        lastRefill = now
    }

    /// - Returns: nil if nothing may be said now; otherwise how many were refused since the last that passed.
    public mutating func allow(now: ContinuousClock.Instant = .now) -> UInt64? {
        refill(now: now)
        guard tokens > 0 else {
            suppressed &+= 1
            return nil
        }
        tokens &-= 1
        defer { suppressed = 0 }
        return suppressed
    }

    private mutating func refill(now: ContinuousClock.Instant) {
        while tokens < burst, now - lastRefill >= interval {
            tokens &+= 1
            lastRefill += interval
        }
        if tokens == burst { lastRefill = now }
    }
}
