// How long a frontend may post no receive buffers, and what follows (xen-netback's rx_drain_timeout and rx_stall_timeout).

/// The clock of one receive ring that has packets and no buffers.
struct StallClock: Sendable {
    /// Then packets that wait are dropped, so that what comes later is not older than that.
    static let drainTime: UInt64 = 10_000_000_000
    /// The same for frontends that never tell of buffers: they are looked at so often.
    static let quickDrainTime: UInt64 = 30_000_000
    /// Then the host sees no link any more.
    static let stallTime: UInt64 = 60_000_000_000
    /// Between two drains of a ring that stays stalled.
    static let drainPause = Duration.seconds(1)

    struct Action: Equatable, Sendable {
        var drains: Bool
        var dropsCarrier: Bool
        /// When to look again.
        var next: Duration
    }

    private let notifiesOfBuffers: Bool
    private var since: UInt64?
    private var isTimerSet = false
    private var isCarrierDown = false

    init(notifiesOfBuffers: Bool) { self.notifiesOfBuffers = notifiesOfBuffers }

    private var patience: UInt64 { notifiesOfBuffers ? StallClock.drainTime : StallClock.quickDrainTime }

    /// The ring waits for buffers.
    /// - Returns: when to call `elapsed`, if that is not under way already.
    mutating func begin(now: UInt64) -> Duration? {
        if since == nil { since = now }
        if isTimerSet { return nil }
        isTimerSet = true
        return .nanoseconds(Int64(patience))
    }

    /// Buffers came.
    /// - Returns: whether the carrier had been taken away.
    mutating func end() -> Bool {
        since = nil
        defer { isCarrierDown = false }
        return isCarrierDown
    }

    /// The timer ran off.
    /// - Returns: nil if nothing is waiting any more; then the timer is not to be set again.
    mutating func elapsed(now: UInt64) -> Action? {
        isTimerSet = false
        guard let since else { return nil }
        isTimerSet = true
        let waited = now &- since
        // Begun anew while an older timer ran: not its time yet.
        if waited < patience {
            return Action(drains: false, dropsCarrier: false, next: .nanoseconds(Int64(patience &- waited)))
        }
        // A frontend that never tells of buffers may be slow, but it is not stalled.
        let isStalled = notifiesOfBuffers && waited >= StallClock.stallTime
        defer { isCarrierDown = isCarrierDown || isStalled }
        return Action(
            drains: true,
            dropsCarrier: isStalled && !isCarrierDown,
            next: notifiesOfBuffers ? StallClock.drainPause : .nanoseconds(Int64(patience))
        )
    }
}
