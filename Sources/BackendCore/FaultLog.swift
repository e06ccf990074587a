// Who is told of what went wrong: faults of a frontend a few times, a failure of the host once for each cause.

public import Logging

/// The log of one queue or device. Everything is counted elsewhere; here it is decided what is also said.
///
/// A frontend's faults pass a rate limiter (XSA-43). A host failure is said once for each cause, and again only after
/// `forget`: a full disk fails every write of a busy guest, and one line is what its owner needs.
public struct FaultLog: Sendable {
    /// Causes remembered; beyond it nothing new is said.
    private static let causeLimit = 64

    private let logger: Logger
    private var limiter = RateLimiter()
    private var causes: Set<String> = []
    /// The last thing the frontend did wrong.
    public private(set) var lastFault: String?
    /// The last thing that went wrong on our side.
    public private(set) var lastFailure: String?

    /// - Parameter logger: carries domain and device in its metadata.
    public init(_ logger: Logger) { self.logger = logger }

    /// The frontend did something wrong.
    public mutating func fault(_ text: @autoclosure () -> String) {
        guard let suppressed = limiter.allow() else { return }
        let text = text()
        lastFault = text
        let more = suppressed > 0 ? " (\(suppressed) more were not logged)" : ""
        logger.warning("frontend fault: \(text)\(more)")
    }

    /// The host failed.
    public mutating func failure(_ text: String) {
        lastFailure = text
        guard causes.count < FaultLog.causeLimit, causes.insert(text).inserted else { return }
        logger.error("\(text)")
    }

    /// Says each cause once more from now on: what failed works again, or is another thing now.
    public mutating func forget() {
        if !causes.isEmpty { causes = [] }
    }
}
