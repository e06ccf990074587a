// Waiting for a slow host: a phase that `show` names, a log line a minute, and no timeout while the device is needed.

internal import HostIO
internal import Hypervisor
internal import XenWire

extension DeviceShell {
    /// Retries until it works: a dead predecessor's lock, port or interface is released, memory is freed.
    ///
    /// A permanent failure (`BackendFailure.mayPass` is false) is thrown at once; a frontend's fault closes its device.
    /// - Parameters:
    ///   - what: what `show` names meanwhile, after "waiting for": `the image's lock`.
    ///   - limit: nil: for as long as the device is needed (`DeviceLife.isWanted`).
    /// - Throws: the last failure.
    public func wait<Result>(
        for what: String,
        within limit: Duration? = nil,
        _ attempt: () async throws(BackendFailure) -> Result
    ) async throws(BackendFailure) -> Result {
        var patience = Patience(limit)
        let outer = life.waitingFor
        defer { life.waitingFor = outer }
        while true {
            do throws(BackendFailure) {
                return try await attempt()
            } catch {
                guard error.mayPass, life.isWanted, let pause = patience.next() else { throw error }
                life.waitingFor = what
                if patience.isTimeToSay { life.log.stillFailing("still waiting for \(what): \(error.text)") }
                await resting { await environment.controlLoop.sleep(for: pause) }
            }
        }
    }
}

/// The mark of the attach that the present task runs, if any.
private enum Attaching {
    @TaskLocal static var mark: DeviceCrashMark?
}

extension DeviceShell {
    /// For code that reads what the frontend and a predecessor left: a crash in it is attributed to this device.
    package func marked<Result>(
        _ attach: () async throws(BackendFailure) -> Result
    ) async throws(BackendFailure) -> Result {
        let mark = mark
        mark?.begin()
        defer { mark?.end() }
        let result = await Attaching.$mark.withValue(mark) { () async -> Swift.Result<Result, BackendFailure> in
            do throws(BackendFailure) { return .success(try await attach()) } catch { return .failure(error) }
        }
        return try result.get()
    }

    /// For waiting: if the worker dies meanwhile, this device's attach is not to blame.
    func resting<Result>(_ wait: () async -> Result) async -> Result {
        let mark = Attaching.mark
        mark?.end()
        defer { mark?.begin() }
        return await wait()
    }
}

extension DeviceShell {
    /// Runs a host call that may hang (storage that does not answer) on a helper thread, and waits for it in the same
    /// way: with a phase, a log line a minute, and for as long as the device is needed. The call itself cannot be
    /// cancelled; a result that nobody waits for any more is dropped.
    /// - Parameter what: what `show` names if it takes longer, after "waiting for".
    public func hostCall<Result: Sendable>(
        _ what: String,
        _ work: @escaping @Sendable () -> Result
    ) async throws(BackendFailure) -> Result {
        let outer = life.waitingFor
        defer { life.waitingFor = outer }
        var patience = Patience(nil)
        let result = await resting {
            await environment.controlLoop.blocking(work, every: .milliseconds(500)) {
                guard life.isWanted else { return false }
                life.waitingFor = what
                if patience.isTimeToSay { life.log.stillFailing("still waiting for \(what)") }
                return true
            }
        }
        guard let result else {
            throw BackendFailure(.host, "\(path) was given up while it waited for \(what)", mayPass: false)
        }
        return result
    }
}

/// How long to wait between two attempts, and when to say so.
struct Patience {
    /// What usually takes milliseconds is not worth a line; what takes longer is worth one a minute.
    private static let firstLine = Duration.seconds(2)
    private static let lineInterval = Duration.seconds(60)

    private let end: ContinuousClock.Instant?
    private var pauses = RetryPause()
    private var nextLine: ContinuousClock.Instant

    init(_ limit: Duration?, now: ContinuousClock.Instant = .now) {
        end = limit.map { now + $0 }
        nextLine = now + Patience.firstLine
    }

    /// - Returns: nil once the limit has passed.
    mutating func next(now: ContinuousClock.Instant = .now) -> Duration? {
        if let end, now >= end { return nil }
        return pauses.next()
    }

    /// Once for each line that is due.
    var isTimeToSay: Bool {
        mutating get { isTimeToSay(now: .now) }
    }

    mutating func isTimeToSay(now: ContinuousClock.Instant) -> Bool {
        guard now >= nextLine else { return false }
        nextLine = now + Patience.lineInterval
        return true
    }
}
