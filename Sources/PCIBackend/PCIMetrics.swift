// What a guest's PCI buses count. A frontend can make us count, but not log, without limit.

internal import BackendCore
internal import XenWire

/// One guest's counters; they only grow.
struct PCIMetrics: DeviceMetrics {
    var reads: UInt64 = 0
    var writes: UInt64 = 0
    /// MSI and MSI-X switched on.
    var interruptsEnabled: UInt64 = 0
    var interruptsDisabled: UInt64 = 0
    /// Interrupts mapped for the guest.
    var vectors: UInt64 = 0
    // Errors by cause.
    /// Operations on places where there is no card.
    var misdirected: UInt64 = 0
    /// Malformed operations, and registers that there are not.
    var faults: UInt64 = 0
    /// Writes that the policy refuses.
    var refused: UInt64 = 0
    /// Writes to registers that only a permissive card's guest may write.
    var unlisted: UInt64 = 0
    /// What the host or the hypervisor did not do.
    var failures: UInt64 = 0
    /// Operations that the frontend had given up before they were done.
    var givenUp: UInt64 = 0
    /// Errors of cards that the guest was to hear of.
    var errorReports: UInt64 = 0
    /// Operations that were found without an event, shortly after an answer.
    var polled: UInt64 = 0
    var turns: UInt64 = 0
    var idleTurns: UInt64 = 0
    var notificationsSent: UInt64 = 0
    /// Of operations in a row, the first and every eighth.
    var latency = LatencyHistogram()

    static let names: [(String, any WritableKeyPath<PCIMetrics, UInt64> & Sendable)] = [
        ("reads", \.reads), ("writes", \.writes), ("interrupts-enabled", \.interruptsEnabled),
        ("interrupts-disabled", \.interruptsDisabled), ("vectors", \.vectors), ("misdirected", \.misdirected),
        ("frontend-faults", \.faults), ("refused", \.refused), ("unlisted", \.unlisted), ("host-failures", \.failures),
        ("given-up", \.givenUp), ("polled", \.polled),
        ("error-reports", \.errorReports), ("turns", \.turns), ("idle-turns", \.idleTurns),
        ("notifications-sent", \.notificationsSent),
    ]

    static let latencies: (any WritableKeyPath<PCIMetrics, LatencyHistogram> & Sendable)? = \PCIMetrics.latency
}
