// How long a frontend may post no receive buffers, and what follows (xen-netback's rx_drain_timeout and rx_stall_timeout).

/// The times of a `StallClock`.
struct StallTimes: Sendable {
    /// After this, waiting packets are dropped, so that none is delivered much later.
    var drain = Duration.seconds(10)
    /// The same for frontends that never notify when they post buffers; also how often their rings are polled.
    var quickDrain = Duration.milliseconds(30)
    /// After this, the host sees the link go down.
    var stall = Duration.seconds(60)
    /// Between two drains of a ring that stays stalled.
    var pause = Duration.seconds(1)
    /// After this without taking a packet, the host is reported as stuck.
    var host = Duration.seconds(10)

    static let usual = StallTimes()
}

/// Measures how long one receive ring has had packets and no buffers.
struct StallClock: Sendable {
    struct Action: Equatable, Sendable {
        var drains: Bool
        var dropsCarrier: Bool
        /// When to look again.
        var next: Duration
    }

    private let notifiesOfBuffers: Bool
    private let times: StallTimes
    private var since: UInt64?
    private var isTimerSet = false
    private var isCarrierDown = false

    init(notifiesOfBuffers: Bool, times: StallTimes = .usual) {
        self.notifiesOfBuffers = notifiesOfBuffers
        self.times = times
    }

    private var patience: Duration { notifiesOfBuffers ? times.drain : times.quickDrain }

    /// The ring waits for buffers.
    /// - Returns: when to call `elapsed`, unless a call is pending already.
    mutating func begin(now: UInt64) -> Duration? {
        if since == nil { since = now }
        if isTimerSet { return nil }
        isTimerSet = true
        return patience
    }

    /// The frontend has posted buffers.
    /// - Returns: whether the carrier had been turned off.
    mutating func end() -> Bool {
        since = nil
        defer { isCarrierDown = false }
        return isCarrierDown
    }

    /// Nothing waits at the host now, though the ring waits for buffers: the stall begins anew.
    mutating func isCalm(now: UInt64) { if since != nil { since = now } }

    /// The timer fired.
    /// - Returns: nil if nothing is waiting any more; then the timer is not to be set again.
    mutating func elapsed(now: UInt64) -> Action? {
        isTimerSet = false
        guard let since else { return nil }
        isTimerSet = true
        let waited = Duration.nanoseconds(Int64(truncatingIfNeeded: now &- since))
        // A new stall began while an older timer was pending: not due yet.
        if waited < patience {
            return Action(drains: false, dropsCarrier: false, next: patience - waited)
        }
        // A frontend that never notifies when it posts buffers may be slow, but counts as not stalled.
        let isStalled = notifiesOfBuffers && waited >= times.stall
        defer { isCarrierDown = isCarrierDown || isStalled }
        return Action(
            drains: true,
            dropsCarrier: isStalled && !isCarrierDown,
            next: notifiesOfBuffers ? times.pause : patience
        )
    }
}
