// How a port bears a frontend that sends events for nothing (XSA-332).

/// After some events in a row that brought no work, a port is unmasked only after a pause, as Linux does
/// (drivers/xen/events/events_base.c, `xen_irq_lateeoi` with `XEN_EOI_FLAG_SPURIOUS`).
public struct SpuriousEventThrottle: Sendable {
    private static let limit = 64
    private static let pause = Duration.milliseconds(1)
    private var spurious = 0

    public init() {}

    /// - Parameter worked: whether the turn that is over found anything to do.
    /// - Returns: how long to wait before the port is unmasked; nil: not at all.
    public mutating func rest(worked: Bool) -> Duration? {
        spurious = worked ? 0 : min(spurious + 1, SpuriousEventThrottle.limit + 1)
        return spurious > SpuriousEventThrottle.limit ? SpuriousEventThrottle.pause : nil
    }
}
