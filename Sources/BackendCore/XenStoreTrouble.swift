// XenStore or Xen fails: log that rarely, and retry with pauses.

public import HostIO
public import Hypervisor
public import Logging
internal import SystemPackage

/// The failures of one task, or of one device, that asks XenStore again and again.
///
/// However often they come and go, in ten seconds one line says that something fails and one that it does no more.
public struct XenStoreTrouble: Sendable {
    private static let quiet: Duration = .seconds(10)

    private var since: ContinuousClock.Instant?
    /// The last line about a failure; it outlives the failure.
    private var reported: ContinuousClock.Instant?
    /// The present failure has been logged, so its end is worth a line.
    private var isTold = false
    private var pauses = RetryPause()

    public init() {}

    /// - Returns: what is to be said of the failure, if anything, and how long to wait before the next attempt.
    public mutating func failed(
        _ failure: HypervisorFailure,
        now: ContinuousClock.Instant = .now
    ) -> (line: String?, pause: Duration) {
        let begun = since ?? now
        since = begun
        let pause = pauses.next()
        if let reported, now - reported < XenStoreTrouble.quiet { return (nil, pause) }
        reported = now
        isTold = true
        let seconds = (now - begun).components.seconds
        let line =
            XenStoreTrouble.isSilence(failure)
            ? "XenStore fails for \(seconds) s: \(failure); trying again"
            : "refused for \(seconds) s: \(failure); trying again"
        return (line, pause)
    }

    /// It worked.
    /// - Returns: what is to be said of the end, if anything.
    public mutating func over(now: ContinuousClock.Instant = .now) -> String? {
        guard let since else { return nil }
        defer { (self.since, isTold, pauses) = (nil, false, RetryPause()) }
        return isTold ? "XenStore and Xen answer again after \((now - since).components.seconds) s" : nil
    }

    /// xenstored does not answer (the two errors of a lost connection, and EAGAIN for a transaction on it). Everything
    /// else is an answer of a working xenstored, or of Xen.
    private static func isSilence(_ failure: HypervisorFailure) -> Bool {
        [.timedOut, .socketNotConnected, .resourceTemporarilyUnavailable].contains(failure.errno)
    }

    /// How long a reader rests after a scan that took `time`: four times as long, so that a host with thousands of
    /// devices spends a fifth of its time on scans at the worst; within limits.
    public static func rest(after time: Duration) -> Duration {
        min(max(.milliseconds(20), time * 4), .milliseconds(500))
    }
}

extension XenStoreTrouble {
    /// The failure's line goes to `log`.
    /// - Returns: how long to wait before the next attempt.
    public mutating func report(_ failure: HypervisorFailure, _ log: Logger) -> Duration {
        let (line, pause) = failed(failure)
        if let line { log.warning("\(line)") }
        return pause
    }

    public mutating func reportOver(_ log: Logger) {
        if let line = over() { log.notice("\(line)") }
    }

    /// Does `action` until it succeeds or the task is cancelled.
    public static func persist(
        _ loop: EventLoop,
        _ log: Logger,
        _ action: () async throws(HypervisorFailure) -> Void
    ) async {
        var trouble = XenStoreTrouble()
        while !Task.isCancelled {
            do throws(HypervisorFailure) {
                try await action()
                return trouble.reportOver(log)
            } catch {
                await loop.sleep(for: trouble.report(error, log))
            }
        }
    }
}
