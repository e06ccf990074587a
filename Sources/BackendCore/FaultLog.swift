// What is logged of faults and failures: a frontend's faults at a limited rate, a host failure once per cause.

public import Logging
internal import Synchronization

/// The log of one device and its queues. Everything is counted elsewhere; this decides what is also logged.
///
/// A frontend's faults, and what else it does that is worth a line, go through a rate limiter (XSA-43). A host failure is logged once per cause, and again only
/// after `forget`: a full disk fails every write of a busy guest, and one line is enough. All logs of a device share
/// one limiter and one memory of causes for the device's lifetime, so that a frontend gains no lines by reconnecting or
/// by using many queues.
public struct FaultLog: Sendable {
    private let logger: Logger
    private let budget: LogBudget
    /// The last thing the frontend did wrong.
    public private(set) var lastFault: String?
    /// The last thing that went wrong on our side.
    public private(set) var lastFailure: String?

    /// The log of a device.
    /// - Parameter logger: carries domain and device in its metadata.
    public init(_ logger: Logger) {
        self.logger = logger
        budget = LogBudget()
    }

    /// The log of a queue of the device, on another loop.
    public init(sharing device: FaultLog) {
        logger = device.logger
        budget = device.budget
    }

    /// The frontend did something wrong.
    public mutating func fault(_ text: @autoclosure () -> String) {
        guard let suppressed = budget.allowFault() else { return }
        let text = text()
        lastFault = text
        let more = suppressed > 0 ? " (\(suppressed) more were not logged)" : ""
        logger.warning("frontend fault: \(text)\(more)")
    }

    /// The frontend did something that is worth a line and no fault: limited like its faults, by the same budget.
    public func remark(_ text: @autoclosure () -> String) {
        guard let suppressed = budget.allowFault() else { return }
        let more = suppressed > 0 ? " (\(suppressed) more lines were not logged)" : ""
        logger.notice("\(text())\(more)")
    }

    /// The host failed.
    public mutating func failure(_ text: String) {
        lastFailure = text
        if budget.isNew(text) { logger.error("\(text)") }
    }

    /// The host still fails, and something waits for it. Always logged: the caller keeps this rare.
    public mutating func stillFailing(_ text: String) {
        lastFailure = text
        logger.warning("\(text)")
    }

    /// Lets each cause be logged once more: what failed works again, or was replaced.
    public mutating func forget() { budget.forget() }
}

/// What the logs of one device may still say.
private final class LogBudget: Sendable {
    /// Causes remembered; new ones beyond these are not logged.
    private static let causeLimit = 64

    private struct State {
        var limiter = RateLimiter()
        var causes: Set<String> = []
    }
    private let state = Mutex(State())

    func allowFault() -> UInt64? { state.withLock { $0.limiter.allow() } }

    func isNew(_ text: String) -> Bool {
        state.withLock { $0.causes.count < LogBudget.causeLimit && $0.causes.insert(text).inserted }
    }

    func forget() { state.withLock { $0.causes.removeAll() } }
}
