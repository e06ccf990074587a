// Who is told of what went wrong: faults of a frontend a few times, a failure of the host once for each cause.

public import Logging
internal import Synchronization

/// The log of one device and its queues. Everything is counted elsewhere; here it is decided what is also said.
///
/// A frontend's faults pass a rate limiter (XSA-43). A host failure is said once for each cause, and again only after
/// `forget`: a full disk fails every write of a busy guest, and one line is what its owner needs. All logs of a device
/// share one limiter and one memory for as long as the device lives: a frontend that connects again and again, to many
/// queues, gains no lines by it.
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

    /// The host failed.
    public mutating func failure(_ text: String) {
        lastFailure = text
        if budget.isNew(text) { logger.error("\(text)") }
    }

    /// The host still fails, and something waits for it. Always said: the caller sees to it that this is rare.
    public mutating func stillFailing(_ text: String) {
        lastFailure = text
        logger.warning("\(text)")
    }

    /// Says each cause once more from now on: what failed works again, or is another thing now.
    public mutating func forget() { budget.forget() }
}

/// What the logs of one device may still say.
private final class LogBudget: Sendable {
    /// Causes remembered; beyond it nothing new is said.
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
