// What the queues of one netchannel2 card share: rate, offloads, carrier.

internal import BackendCore
internal import HostNetwork
internal import Synchronization
internal import XenWire

/// Shared by all queues of one connection, on whatever loops they run.
final class NetChannel2Shared: Sendable {
    private struct Rate {
        var text: String?
        var bucket: CreditBucket?
    }
    private let device: any PacketDevice
    private let rate = Mutex(Rate())
    private let limited = Atomic(false)
    /// By queue: what its frontend takes.
    private let taken: Mutex<[NetChannel2Offloads]>
    private let stalled = Mutex<Set<Int>>([])
    /// The frontend's address, if no other source is let through.
    let onlySource: MACAddress?

    init(_ device: any PacketDevice, queueCount: Int, onlySource: MACAddress?) {
        self.device = device
        self.onlySource = onlySource
        taken = Mutex(Array(repeating: [], count: queueCount))
    }

    // MARK: rate

    /// Whether there is a limit.
    var isLimited: Bool { limited.load(ordering: .relaxed) }
    var rateText: String? { rate.withLock { $0.text } }

    func setRate(_ limit: TransmitRate?, text: String?) {
        rate.withLock { rate in
            rate.text = text
            rate.bucket = limit.map { CreditBucket(rate: $0, now: MonotonicClock.nanoseconds) }
        }
        limited.store(limit != nil, ordering: .relaxed)
    }

    /// Charges a packet to the rate.
    /// - Returns: nil if there was credit for it; otherwise how long to wait before the next try.
    func pay(_ byteCount: Int) -> Duration? {
        rate.withLock { rate in
            let now = MonotonicClock.nanoseconds
            guard let time = rate.bucket?.take(byteCount, now: now) else { return nil }
            // At most a second at a time: the rate may be raised meanwhile.
            return .nanoseconds(Int64(min(time &- now, 1_000_000_000)))
        }
    }

    // MARK: offloads

    /// The frontend has said on one of its queues what it takes. The interface has one setting for all of them: what
    /// every queue takes.
    func takes(_ offloads: NetChannel2Offloads, queue: Int) {
        let common = taken.withLock { taken -> NetChannel2Offloads? in
            if taken[queue] == offloads { return nil }
            taken[queue] = offloads
            return taken.reduce(offloads) { $0.intersection($1) }
        }
        // Ignored: a device that is gone sends nothing.
        if let common { try? device.setOffloads(NetChannel2Pipeline.offloads(common)) }
    }

    // MARK: carrier

    /// A queue whose frontend takes nothing turns the carrier off; it comes back when no queue is stalled.
    func carrier(queue: Int, isUp: Bool) {
        let change = stalled.withLock { stalled -> Bool? in
            let was = stalled.isEmpty
            if isUp { stalled.remove(queue) } else { stalled.insert(queue) }
            return was == stalled.isEmpty ? nil : stalled.isEmpty
        }
        // Ignored: a device that is gone has no carrier.
        if let change { try? device.setCarrier(change) }
    }
}
