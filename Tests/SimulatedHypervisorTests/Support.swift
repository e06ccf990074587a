// What the tests of this folder share: a machine with a guest, and ways to wait without sleeping blindly.

internal import Hypervisor
internal import SimulatedHypervisor
internal import Synchronization
internal import SystemPackage
internal import TestSupport
internal import XenWire

let otherDomain = DomainID(8)!

/// A machine with domains 0, 7 and 8.
func machineWithGuests(quota: XenStoreQuota = XenStoreQuota()) throws -> SimulatedMachine {
    let machine = try SimulatedMachine(quota: quota)
    try machine.createDomain(guestDomain)
    try machine.createDomain(otherDomain)
    return machine
}

/// Counts how often a signal was raised.
final class Raises: Sendable {
    let signal = WatchSignal()
    private let counter = Mutex(0)
    var count: Int { counter.withLock { $0 } }

    init() {
        Task { [signal, weak self] in
            for await _ in signal.events { self?.counter.withLock { $0 += 1 } }
        }
    }

    deinit { signal.finish() }

    func reaches(_ count: Int) async -> Bool { await eventually { self.count >= count } }
}

/// The errno a call ends with; nil if it succeeds.
func failure(_ body: () throws(HypervisorFailure) -> Void) -> Errno? {
    do throws(HypervisorFailure) { try body() } catch { return error.errno }
    return nil
}

func asyncFailure(_ body: () async throws(HypervisorFailure) -> Void) async -> Errno? {
    do throws(HypervisorFailure) { try await body() } catch { return error.errno }
    return nil
}
