// What the queues of one card share: rate, multicast addresses, hash settings, carrier.

internal import BackendCore
internal import HostNetwork
internal import SharedRing
internal import Synchronization
internal import XenWire

/// Shared by all queues of one connection, on whatever loops they run. A feature that is not used costs a queue one
/// load.
final class NetSharedState: Sendable {
    /// Packets from other queues that may wait for one.
    private static let steeredLimit = 64

    private struct Rate {
        var text: String?
        var bucket: CreditBucket?
    }
    /// A packet that arrived at one queue and belongs to another.
    struct SteeredPacket: Sendable {
        let header: [UInt8]
        let frame: [UInt8]
    }
    private struct Inbox {
        var packets: [SteeredPacket] = []
        var wake: (@Sendable () -> Void)?
    }

    private let device: any PacketDevice
    private let journal: JournalState
    private let queueCount: Int
    private let rate = Mutex(Rate())
    private let settings: Mutex<NetSettings>
    private let inboxes: Mutex<[Inbox]>
    private let stalled = Mutex<Set<Int>>([])
    private let limited = Atomic(false)
    private let filtering: Atomic<Bool>
    private let hashing: Atomic<Bool>

    /// Restores what a predecessor saved in the journal.
    init(_ connection: NetConnection, _ device: any PacketDevice, _ journal: RequestJournal) {
        self.device = device
        self.journal = journal.state
        queueCount = connection.queues.count
        let remembered = NetSettings(remembered: journal.state.load(), queues: queueCount)
        hashing = Atomic(remembered.hash.isActive)
        settings = Mutex(remembered)
        filtering = Atomic(connection.requestsMulticastControl)
        inboxes = Mutex(Array(repeating: Inbox(), count: queueCount))
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

    // MARK: multicast

    /// Whether multicast goes only to addresses that were added.
    var isFiltering: Bool { filtering.load(ordering: .relaxed) }

    func setFiltering(_ isFiltering: Bool) { filtering.store(isFiltering, ordering: .relaxed) }

    func change(_ request: MulticastRequest) -> TransmitStatus {
        settings.withLock { settings in
            defer { journal.save(settings.bytes) }
            return settings.filter.perform(request)
        }
    }
    func passes(_ destination: MACAddress) -> Bool {
        !destination.isGroup || settings.withLock { $0.filter.passes(destination) }
    }
    var multicastCount: Int { settings.withLock { $0.filter.count } }

    // MARK: hash

    /// Whether packets are spread over the queues by the frontend's hash.
    var isHashing: Bool { hashing.load(ordering: .relaxed) }

    /// The first half of a control request.
    func plan(_ request: ControlRequest) -> ControlPlan {
        settings.withLock { settings in
            let plan = settings.hash.plan(request, queues: queueCount)
            if request.type == .setHashKey, case .answer = plan { settings.key = [] }
            remember(settings)
            return plan
        }
    }

    /// The second half of a control request, once the granted bytes are copied.
    func finish(_ request: ControlRequest, _ bytes: Slot) -> ControlResponse {
        settings.withLock { settings in
            let response = settings.hash.finish(request, bytes: bytes, queues: queueCount)
            if request.type == .setHashKey, response.status == ControlStatus.success.rawValue {
                settings.key = (0..<bytes.byteCount).map { bytes.u8($0) }
            }
            remember(settings)
            return response
        }
    }

    private func remember(_ settings: NetSettings) {
        hashing.store(settings.hash.isActive, ordering: .relaxed)
        journal.save(settings.bytes)
    }

    /// A packet's hash, and the queue that it selects.
    func steering(_ packet: Slot, _ headers: PacketHeaders) -> (hash: PacketHash, queue: Int)? {
        settings.withLock { settings in
            guard let hash = settings.hash.hash(of: packet, headers: headers) else { return nil }
            return (hash, settings.hash.queue(for: hash, queues: queueCount))
        }
    }

    /// Hands a packet to another queue; one that does not keep up drops it.
    func post(_ packet: Slot, _ header: Slot, to queue: Int) {
        let steered = SteeredPacket(header: header.bytes, frame: packet.bytes)
        let wake = inboxes.withLock { inboxes -> (@Sendable () -> Void)? in
            guard queue < inboxes.count, inboxes[queue].packets.count < NetSharedState.steeredLimit else { return nil }
            inboxes[queue].packets.append(steered)
            return inboxes[queue].packets.count == 1 ? inboxes[queue].wake : nil
        }
        wake?()
    }

    func onSteered(queue: Int, _ wake: (@Sendable () -> Void)?) {
        inboxes.withLock { $0[queue].wake = wake }
    }

    func takeSteered(queue: Int, limit: Int) -> [SteeredPacket] {
        let (taken, wake) = inboxes.withLock { inboxes -> ([SteeredPacket], (@Sendable () -> Void)?) in
            let taken = Array(inboxes[queue].packets.prefix(limit))
            inboxes[queue].packets.removeFirst(taken.count)
            return (taken, inboxes[queue].packets.isEmpty ? nil : inboxes[queue].wake)
        }
        wake?()
        return taken
    }

    // MARK: carrier

    /// A queue whose frontend posts no buffers turns the carrier off; it comes back when no queue is stalled.
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
