// XenStore or Xen does not give what is asked for: say so rarely, and try again without haste.

internal import HostIO
internal import Hypervisor
internal import Logging
internal import SystemPackage

/// The failures of one task that reads XenStore again and again.
///
/// However often they come and go, in ten seconds one line says that something fails and one that it does no more.
struct XenStoreTrouble: Sendable {
    static let quiet: Duration = .seconds(10)

    private var since: ContinuousClock.Instant?
    /// The last line about a failure; it outlives the failure.
    private var reported: ContinuousClock.Instant?
    /// A failure of the present row has been told of, so its end is worth a line.
    private var isTold = false
    private var failures = 0

    /// From 50 ms up to a second.
    var pause: Duration { min(.milliseconds(50) * failures, .seconds(1)) }

    mutating func report(_ failure: HypervisorFailure, _ log: Logger, now: ContinuousClock.Instant = .now) {
        if let line = line(for: failure, now: now) { log.warning("\(line)") }
    }

    mutating func over(_ log: Logger, now: ContinuousClock.Instant = .now) {
        if let line = endLine(now: now) { log.notice("\(line)") }
    }

    /// - Returns: what is to be said of the failure, if anything.
    mutating func line(for failure: HypervisorFailure, now: ContinuousClock.Instant) -> String? {
        failures += 1
        let begun = since ?? now
        since = begun
        if let reported, now - reported < XenStoreTrouble.quiet { return nil }
        reported = now
        isTold = true
        let seconds = (now - begun).components.seconds
        return XenStoreTrouble.isSilence(failure)
            ? "XenStore fails for \(seconds) s: \(failure); trying again"
            : "refused for \(seconds) s: \(failure); trying again"
    }

    /// - Returns: what is to be said of the end, if anything.
    mutating func endLine(now: ContinuousClock.Instant) -> String? {
        defer { (since, failures, isTold) = (nil, 0, false) }
        guard isTold, let since else { return nil }
        return "XenStore and Xen answer again after \((now - since).components.seconds) s"
    }

    /// xenstored does not answer (the two errors of a lost connection, and EAGAIN for a transaction that was in it).
    /// Everything else is an answer: of a xenstored that works, or of Xen.
    private static func isSilence(_ failure: HypervisorFailure) -> Bool {
        [.timedOut, .socketNotConnected, .resourceTemporarilyUnavailable].contains(failure.errno)
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
