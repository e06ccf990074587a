// blkfront in Swift: connects to a block backend, reads and writes through its rings.

public import HostIO
public import Hypervisor
public import SharedRing
public import XenWire

/// A block frontend on one loop. It behaves as Linux's blkfront does on the wire and in XenStore; its requests end with
/// an error when the connection goes away, and are not repeated.
public actor BlockFrontend: PVFrontend {
    public nonisolated let loop: EventLoop
    public nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }
    public nonisolated let bus: FrontendBus
    public nonisolated let hypervisor: any Hypervisor
    public let options: BlockFrontendOptions

    /// nil while not connected.
    public private(set) var connection: BlockFrontendConnection?
    public var link = FrontendLink()
    var queues: [BlockFrontQueue] = []
    private var nextQueue = 0

    /// - Parameters:
    ///   - hypervisor: as seen from the guest.
    ///   - index: the device number, 51712 for xvda.
    public init(_ hypervisor: any Hypervisor, loop: EventLoop, index: UInt32, options: BlockFrontendOptions = .init()) {
        self.hypervisor = hypervisor
        self.loop = loop
        self.options = options
        bus = FrontendBus(store: hypervisor.store, path: "device/vbd/\(index)")
    }

    // MARK: connecting

    public var isConnected: Bool { connection != nil }

    /// State 2 of the backend, our 3 with the rings, its 4, ours.
    public func establish(with backend: DomainID, within limit: Duration) async throws(FrontendFailure) {
        let offer = try await OfferedBlockFeatures(reading: bus, link.backendPath)
        let events = try openEvents()
        for _ in 0..<offer.queueCount(options) {
            queues.append(
                try BlockFrontQueue(
                    hypervisor: hypervisor,
                    events: events,
                    backend: backend,
                    ringPages: 1 << offer.ringPageOrder(options),
                    maxSegments: offer.maxSegments(options),
                    options: options
                )
            )
        }
        try await bus.publish(keys(offer))
        try await bus.publish(.initialised)
        try await awaitConnected(within: limit)
        connection = try await BlockFrontendConnection(
            reading: bus,
            link.backendPath,
            offer,
            options,
            backend: backend,
            ringSize: queues[0].size
        )
        try await bus.publish(.connected)
    }

    private func keys(_ offer: OfferedBlockFeatures) -> [(String, String?)] {
        var keys: [(String, String?)] = [
            (BlockKeys.protocol, options.writesProtocol ? options.abi.rawValue : nil),
            (BlockKeys.featurePersistent, options.persistent ? "1" : "0"),
        ]
        let order = offer.ringPageOrder(options)
        keys.append((BlockKeys.ringPageOrder, order > 0 ? "\(order)" : nil))
        let isMulti = queues.count > 1
        keys.append((BusKeys.multiQueueNumQueues, isMulti ? "\(queues.count)" : nil))
        for (index, queue) in queues.enumerated() {
            let folder = isMulti ? "\(BusKeys.queue(index))/" : ""
            let references = queue.ringGrant.references
            if references.count == 1 {
                keys.append((folder + BlockKeys.ringReference, "\(references[0].rawValue)"))
            } else {
                for (page, reference) in references.enumerated() {
                    keys.append((folder + BlockKeys.ringReference(page), "\(reference.rawValue)"))
                }
            }
            keys.append((folder + BusKeys.eventChannel, "\(queue.port.rawValue)"))
        }
        return keys
    }

    // MARK: requests

    /// Reads whole sectors of 512 bytes into private memory. Long reads are split as the connection requires.
    public func read(
        sector: UInt64,
        count: Int,
        into pages: PrivatePages,
        at offset: Int = 0
    ) async throws(FrontendFailure) {
        try await transfer(.read, sector, count, pages, offset)
    }

    /// Writes whole sectors of 512 bytes from private memory.
    /// - Parameter barrier: as write barriers: all before it is on the disk first, and it before all after it.
    public func write(
        sector: UInt64,
        count: Int,
        from pages: PrivatePages,
        at offset: Int = 0,
        barrier: Bool = false
    ) async throws(FrontendFailure) {
        if barrier { try need(.barrier, BlockKeys.featureBarrier) }
        try await transfer(barrier ? .writeBarrier : .write, sector, count, pages, offset)
    }

    public func flush() async throws(FrontendFailure) {
        try need(.flush, BlockKeys.featureFlushCache)
        let request = FrontRequest(operation: .flushDiskCache, sector: 0, sectorCount: 0)
        try await queue().run(request, nil, at: 0)
    }

    public func discard(sector: UInt64, count: Int, secure: Bool = false) async throws(FrontendFailure) {
        try need(secure ? .secureDiscard : .discard, BlockKeys.featureDiscard)
        let request = FrontRequest(operation: .discard, sector: sector, sectorCount: count, isSecure: secure)
        try await queue().run(request, nil, at: 0)
    }

    private func need(_ feature: BlockLimits.Features, _ name: String) throws(FrontendFailure) {
        guard let connection else { throw .closed }
        guard connection.features.contains(feature) else { throw .unsupported(name) }
    }

    private func transfer(
        _ operation: BlockOperation,
        _ sector: UInt64,
        _ count: Int,
        _ pages: PrivatePages,
        _ offset: Int
    ) async throws(FrontendFailure) {
        guard let connection else { throw .closed }
        // A barrier is never indirect (blkif.h: only read and write may be).
        let segments = operation == .writeBarrier ? BlockWire.maxSegments : connection.maxSegments
        let limit = segments * BlockWire.sectorsPerPage
        var done = 0
        while done < count {
            let part = min(count - done, limit)
            let request = FrontRequest(operation: operation, sector: sector &+ UInt64(done), sectorCount: part)
            try await queue().run(request, pages, at: offset + done * BlockWire.sectorSize)
            done += part
        }
    }

    /// The queues in turn.
    private func queue() throws(FrontendFailure) -> BlockFrontQueue {
        guard connection != nil, !queues.isEmpty else { throw .closed }
        nextQueue = (nextQueue + 1) % queues.count
        return queues[nextQueue]
    }

    // MARK: what happens to it

    public func eventArrived(on port: EventChannelPort) throws(FrontendFailure) {
        try queues.first { $0.port == port }?.takeAnswers()
    }

    public static var watchedKeys: [String] { [BlockKeys.sectors] }

    /// A resize (xen-blkfront.c, `blkback_changed`).
    public func backendRepublished(_ keys: [String: String]) {
        if let sectors = keys[BlockKeys.sectors].flatMap({ UInt64(decimal: $0) }) { connection?.sectors = sectors }
    }

    public func releaseRings() {
        connection = nil
        for queue in queues { queue.close() }
        queues = []
    }
}
