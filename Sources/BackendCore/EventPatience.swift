// How a queue bears a frontend that sends events for nothing (XSA-332).

/// After some events in a row that brought no work, a port is unmasked only after a pause.
public struct EventPatience: Sendable {
    private static let limit = 64
    private static let pause = Duration.milliseconds(1)
    private var needless = 0

    public init() {}

    /// - Parameter worked: whether the turn that is over found anything to do.
    /// - Returns: how long to wait before the port is unmasked; nil: not at all.
    public mutating func rest(worked: Bool) -> Duration? {
        needless = worked ? 0 : min(needless + 1, EventPatience.limit + 1)
        return needless > EventPatience.limit ? EventPatience.pause : nil
    }
}
