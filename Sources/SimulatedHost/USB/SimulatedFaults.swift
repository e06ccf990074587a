// Faults of a simulated device, and when they happen.

internal import HostUSB
internal import Synchronization

/// One thing that goes wrong with a transfer, when its turn comes.
public enum SimulatedFault: Hashable, Sendable {
    /// The endpoint halts (endpoint 0 only refuses the request).
    case stall
    /// The device does not stop sending: nothing usable has come.
    case babble
    /// The device sends more than was asked for: what was asked for has come, and the transfer fails.
    case excess
    /// No answer, or a bad checksum.
    case transactionError
    /// Half of the transfer is done, then the device is unplugged.
    case vanish
    /// The answer takes that long.
    case delay(Duration)
    /// There is no answer until the transfer is cancelled.
    case silence
}

/// Faults of one device, by endpoint. Any thread may add them.
public final class SimulatedFaults: Sendable {
    private struct Entry {
        let fault: SimulatedFault
        let endpoint: UInt8
        var transfersBefore: Int
        var count: Int
    }
    private let entries = Mutex<[Entry]>([])

    init() {}

    /// Makes `count` transfers of an endpoint fail, after `transfersBefore` others.
    /// - Parameter endpoint: with its direction; 0 for all control transfers.
    public func add(_ fault: SimulatedFault, endpoint: UInt8, after transfersBefore: Int = 0, count: Int = 1) {
        entries.withLock {
            $0.append(Entry(fault: fault, endpoint: endpoint, transfersBefore: transfersBefore, count: count))
        }
    }

    /// The fault of the endpoint's next transfer.
    func take(_ endpoint: UInt8) -> SimulatedFault? {
        entries.withLock { entries in
            if entries.isEmpty { return nil }
            guard let index = entries.firstIndex(where: { $0.endpoint == endpoint }) else { return nil }
            if entries[index].transfersBefore > 0 {
                entries[index].transfersBefore -= 1
                return nil
            }
            entries[index].count -= 1
            defer { if entries[index].count <= 0 { entries.remove(at: index) } }
            return entries[index].fault
        }
    }
}
