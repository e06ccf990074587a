// netfront2 in Swift: connects to a netchannel2 backend (profiles P1 and P2), sends and receives packets.

public import HostIO
public import Hypervisor
internal import NetChannel2
internal import SharedRing
public import XenWire

/// How a netchannel2 frontend connects.
public struct NetChannel2FrontendOptions: Sendable {
    /// Queues; fewer if the backend offers fewer.
    public var queueCount = 1
    /// log2 of the pages of each ring; less if the backend takes less.
    public var ringOrder: UInt32 = 2
    /// Pages that each queue's packets lie in, 18 … 1024.
    public var pageCount = 64
    /// What we take. Not more packets than `NetChannel2Wire.maxPackets` of the rings.
    public var limits = NetChannel2Limits(
        maxPackets: 128,
        maxFragments: UInt32(NetChannel2Wire.maxFragments),
        offloads: [.checksum, .segmentationV4]
    )

    public init() {}
}

/// A packet with what is said about it.
public struct NetChannel2Frame: Hashable, Sendable {
    /// From the destination address on.
    public var bytes: [UInt8]
    public var flags: NetChannel2PacketFlags
    /// 0: not to be segmented.
    public var segmentSize: UInt16
    /// With a blank checksum: where the sum begins, and where it goes, both from the packet's first byte.
    public var checksumStart: UInt16
    public var checksumOffset: UInt16

    public init(
        bytes: [UInt8],
        flags: NetChannel2PacketFlags = [],
        segmentSize: UInt16 = 0,
        checksumStart: UInt16 = 0,
        checksumOffset: UInt16 = 0
    ) {
        self.bytes = bytes
        self.flags = flags
        self.segmentSize = segmentSize
        self.checksumStart = checksumStart
        self.checksumOffset = checksumOffset
    }
}

/// What a queue counted since it was made.
public struct NetChannel2Statistics: Hashable, Sendable {
    public var sentPackets: UInt64 = 0
    public var receivedPackets: UInt64 = 0
    /// Of those, the ones that were all in their message.
    public var receivedSmall: UInt64 = 0
    /// Packets of the backend's that could not be copied.
    public var failedPackets: UInt64 = 0
    public var notifications: UInt64 = 0
}

/// A netchannel2 frontend on one loop.
public actor NetChannel2Frontend: PVFrontend {
    public nonisolated let loop: EventLoop
    public nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }
    public nonisolated let bus: FrontendBus
    public nonisolated let hypervisor: any Hypervisor
    public let options: NetChannel2FrontendOptions
    public var link = FrontendLink()
    public private(set) var isConnected = false
    private var queues: [NetChannel2FrontQueue] = []
    private var received: [NetChannel2Frame] = []
    /// Sends so far: a clock that orders what is under way.
    private var clock: UInt64 = 0

    /// - Parameters:
    ///   - hypervisor: as seen from the guest.
    ///   - index: the device number, 0 for the first card of this kind.
    public init(
        _ hypervisor: any Hypervisor,
        loop: EventLoop,
        index: UInt32,
        options: NetChannel2FrontendOptions = .init()
    ) {
        precondition((18...NetChannel2Session.maxOutstanding).contains(options.pageCount))
        self.hypervisor = hypervisor
        self.loop = loop
        self.options = options
        bus = FrontendBus(store: hypervisor.store, path: "device/vif2/\(index)")
    }

    /// State 2 of the backend, our 3 with the rings, its 4, our 4.
    public func establish(with backend: DomainID, within limit: Duration) async throws(FrontendFailure) {
        let offer = try await bus.read(
            [NetChannel2Keys.maxRingOrder, BusKeys.multiQueueMaxQueues],
            of: link.backendPath
        )
        var options = options
        options.ringOrder = min(options.ringOrder, number(offer[NetChannel2Keys.maxRingOrder], 0))
        let count = min(options.queueCount, Int(number(offer[BusKeys.multiQueueMaxQueues], 1)))
        let most = NetChannel2Wire.maxPackets(producingRingBytes: SharedPages.pageSize << Int(options.ringOrder))
        options.limits.maxPackets = min(options.limits.maxPackets, most)
        let events = try openEvents()
        for _ in 0..<max(count, 1) {
            queues.append(try NetChannel2FrontQueue(hypervisor, events, backend: backend, options))
        }
        try await bus.publish(keys())
        try await bus.publish(.initialised)
        try await awaitConnected(within: limit)
        try await bus.publish(.connected)
        isConnected = true
        for queue in queues { try queue.open(options.limits) }
    }

    private func number(_ text: String?, _ missing: UInt32) -> UInt32 {
        text.flatMap { UInt32(decimal: $0) } ?? missing
    }

    private func keys() -> [(String, String?)] {
        guard queues.count > 1 else { return [(BusKeys.multiQueueNumQueues, nil)] + queues[0].keys }
        var keys: [(String, String?)] = [(BusKeys.multiQueueNumQueues, "\(queues.count)")]
        for (index, queue) in queues.enumerated() {
            keys += queue.keys.map { ("\(BusKeys.queue(index))/\($0.0)", $0.1) }
        }
        return keys
    }

    public func eventArrived(on port: EventChannelPort) throws(FrontendFailure) {
        for queue in queues where queue.port == port { try queue.turn { received.append($0) } }
    }

    public func releaseRings() {
        isConnected = false
        for queue in queues { queue.close() }
        queues = []
    }

    // MARK: packets

    /// Sends a packet; waits until the backend takes it.
    /// - Throws: `unsupported` if it takes none like this.
    public func send(_ frame: NetChannel2Frame, queue index: Int = 0) async throws(FrontendFailure) {
        while true {
            guard isConnected, queues.indices.contains(index) else { throw .closed }
            let queue = queues[index]
            clock += 1
            switch try queue.send(frame, now: clock) {
            case .sent: return
            case .unfit: throw .unsupported("packets of \(frame.bytes.count) bytes")
            case .wait: await withCheckedContinuation { queue.wait($0) }
            }
            // Messages may have been what kept the link awake.
            if isConnected, queues.indices.contains(index) { try queues[index].turn { received.append($0) } }
        }
    }

    /// Packets that have come since the last call, in order.
    public func takeReceived() -> [NetChannel2Frame] {
        defer { received = [] }
        return received
    }

    /// Says on all queues that other offloads are taken from now on.
    /// - Returns: false if a queue had no room to say so.
    public func change(_ offloads: NetChannel2Offloads) throws(FrontendFailure) -> Bool {
        var isSaid = true
        for queue in queues { isSaid = try queue.change(offloads) && isSaid }
        return isSaid
    }

    /// What the backend takes on its first queue; nil while not connected.
    public var peer: NetChannel2Limits? { queues.first?.peer }
    public var queueCount: Int { queues.count }
    /// Packets of ours that the backend has not finished.
    public var outstanding: Int { queues.reduce(0) { $0 + $1.outstanding } }
    /// What each queue counted.
    public var statistics: [NetChannel2Statistics] { queues.map(\.statistics) }
}
