// What a guest's queue is made with and never changes.

internal import BackendCore
internal import Hypervisor
internal import Synchronization
internal import XenWire

/// The surroundings of one guest's cards.
struct PCIQueueFacts: Sendable {
    let path: DevicePath
    let interrupts: any GuestInterrupts
    let data: DataLoop
    let mark: DeviceCrashMark?
    let activity = PCIActivity()
}

/// Which card the queue waits for, for those who ask from other loops: the queue's own stands still meanwhile.
final class PCIActivity: Sendable {
    /// Longer than a card takes from one power state to another.
    private static let patience: UInt64 = 500_000_000
    private let current = Mutex<(what: PCIAddress, since: UInt64)?>(nil)

    /// Runs a call of the host's.
    /// - Parameter start: when it began.
    func during<Result, Failure: Error>(
        _ card: PCIAddress,
        since start: UInt64 = MonotonicClock.nanoseconds,
        _ body: () throws(Failure) -> Result
    ) throws(Failure) -> Result {
        current.withLock { $0 = (card, start) }
        defer { current.withLock { $0 = nil } }
        return try body()
    }

    /// The card that the host has been busy with for longer than that.
    var late: PCIAddress? {
        guard let current = current.withLock({ $0 }) else { return nil }
        return MonotonicClock.nanoseconds &- current.since > PCIActivity.patience ? current.what : nil
    }
}
