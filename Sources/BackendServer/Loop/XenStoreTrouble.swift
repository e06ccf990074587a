// XenStore does not answer: say so once, then rarely, and try again without haste.

internal import HostIO
internal import Hypervisor
internal import Logging

/// The failures of one task that reads XenStore again and again.
struct XenStoreTrouble: Sendable {
    private var since: ContinuousClock.Instant?
    private var reported: ContinuousClock.Instant?
    private var failures = 0

    /// From 50 ms up to a second.
    var pause: Duration { min(.milliseconds(50) * failures, .seconds(1)) }

    mutating func report(_ failure: HypervisorFailure, _ log: Logger, now: ContinuousClock.Instant = .now) {
        failures += 1
        let begun = since ?? now
        since = begun
        if let reported, now - reported < .seconds(10) { return }
        reported = now
        log.warning("XenStore fails for \((now - begun).components.seconds) s: \(failure); trying again")
    }

    mutating func over(_ log: Logger, now: ContinuousClock.Instant = .now) {
        if let since { log.notice("XenStore answers again after \((now - since).components.seconds) s") }
        self = XenStoreTrouble()
    }

    /// How long a reader rests after a scan that took `time`: four times as long, so that a host with thousands of
    /// devices spends a fifth of its time on scans at the worst; within limits.
    static func rest(after time: Duration) -> Duration { min(max(.milliseconds(20), time * 4), .milliseconds(500)) }

    /// Does `action` until it succeeds or the task is cancelled.
    static func persist(
        _ loop: EventLoop,
        _ log: Logger,
        _ action: () async throws(HypervisorFailure) -> Void
    ) async {
        var trouble = XenStoreTrouble()
        while !Task.isCancelled {
            do throws(HypervisorFailure) {
                try await action()
                return trouble.over(log)
            } catch {
                trouble.report(error, log)
                await loop.sleep(for: trouble.pause)
            }
        }
    }
}
