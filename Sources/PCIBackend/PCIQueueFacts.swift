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

/// What the queue waits for of the host, for those who ask from elsewhere: its own loop stands still meanwhile.
final class PCIActivity: Sendable {
    /// Longer than a card takes from one power state to another.
    private static let patience: UInt64 = 500_000_000
    private let current = Mutex<(what: PCIAddress, since: UInt64)?>(nil)

    /// Runs a call of the host's.
    func during<Result, Failure: Error>(
        _ card: PCIAddress,
        _ body: () throws(Failure) -> Result
    ) throws(Failure) -> Result {
        current.withLock { $0 = (card, MonotonicClock.nanoseconds) }
        defer { current.withLock { $0 = nil } }
        return try body()
    }

    /// The card that the host has been busy with for too long.
    var late: PCIAddress? {
        guard let current = current.withLock({ $0 }) else { return nil }
        return MonotonicClock.nanoseconds &- current.since > PCIActivity.patience ? current.what : nil
    }
}
