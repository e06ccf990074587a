// What the queues of one card share: rate, multicast addresses, hash settings, carrier.

internal import BackendCore
internal import HostNetwork
internal import Synchronization
internal import XenWire

/// Shared by all queues of one connection, on whatever loops they run. What is not used costs a queue one load.
final class NetBoard: Sendable {
    /// Room in the journal for what a frontend set once: hash and multicast addresses.
    static let stateBytes = 2048

    private struct Rate {
        var text: String?
        var bucket: CreditBucket?
    }
    private struct Settings {
        var filter = MulticastFilter()
        var hash: HashSettings
    }

    private let device: any PacketDevice
    private let journal: JournalState
    private let rate = Mutex(Rate())
    private let settings: Mutex<Settings>
    private let stalled = Mutex<Set<Int>>([])
    private let limited = Atomic(false)
    private let filtering: Atomic<Bool>
    private let hashing = Atomic(false)

    /// Takes over what a predecessor's journal remembers.
    init(_ connection: NetConnection, _ device: any PacketDevice, _ journal: RequestJournal) {
        self.device = device
        self.journal = journal.state
        settings = Mutex(Settings(hash: HashSettings(queueCount: connection.queues.count)))
        filtering = Atomic(connection.requestsMulticastControl)
    }

    // MARK: rate

    /// Whether there is a limit at all.
    var isLimited: Bool { limited.load(ordering: .relaxed) }
    var rateText: String? { rate.withLock { $0.text } }

    func setRate(_ limit: TransmitRate?, text: String?) {
        rate.withLock { rate in
            rate.text = text
            rate.bucket = limit.map { CreditBucket($0, now: MonotonicClock.nanoseconds) }
        }
        limited.store(limit != nil, ordering: .relaxed)
    }
}

extension NetBoard {
    /// Runs `body` on the limit, if there is one.
    func pause() -> UInt64? {
        rate.withLock { $0.bucket?.pause(now: MonotonicClock.nanoseconds) }
    }
    func charge(_ byteCount: Int) {
        rate.withLock { $0.bucket?.charge(byteCount, now: MonotonicClock.nanoseconds) }
    }

    // MARK: multicast

    /// Whether multicast goes only to addresses that were added.
    var isFiltering: Bool { filtering.load(ordering: .relaxed) }

    func setFiltering(_ isFiltering: Bool) { filtering.store(isFiltering, ordering: .relaxed) }

    /// - Returns: false if the list is full.
    func change(_ request: MulticastRequest) -> Bool {
        settings.withLock { settings in
            settings.filter.perform(request)
        }
    }
    func wants(_ address: MACAddress) -> Bool { settings.withLock { $0.filter.contains(address) } }
    var multicastCount: Int { settings.withLock { $0.filter.count } }

    // MARK: carrier

    /// A queue whose frontend posts no buffers takes the carrier away; it is back when no queue is stalled.
    func carrier(queue: Int, isUp: Bool) {
        let change = stalled.withLock { stalled -> Bool? in
            let was = stalled.isEmpty
            if isUp { stalled.remove(queue) } else { stalled.insert(queue) }
            return was == stalled.isEmpty ? nil : stalled.isEmpty
        }
        // A device that is gone has no carrier to speak of.
        if let change { try? device.setCarrier(change) }
    }
}
