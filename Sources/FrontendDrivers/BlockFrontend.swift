// blkfront in Swift: connects to a block backend, reads and writes through its rings.

public import HostIO
public import Hypervisor
public import SharedRing
internal import XenWire

/// A block frontend on one loop. It behaves as Linux's blkfront does on the wire and in XenStore; its requests end with
/// an error, not by themselves, when the connection goes away.
public actor BlockFrontend: WokenFrontend {
    public nonisolated let loop: EventLoop
    public nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }
    public nonisolated let bus: FrontendBus
    private let hypervisor: any Hypervisor
    public let options: BlockFrontendOptions

    /// nil while not connected.
    public private(set) var connection: BlockFrontendConnection?
    /// What the ring told us that no backend may say.
    public private(set) var lastFault: FrontendFailure?
    var queues: [BlockFrontQueue] = []
    private var nextQueue = 0
    private var events: (any EventChannels)?
    private var waker: FrontendWaker?
    private var backendPath = ""
    private var monitor: BackendMonitor?

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

    /// Waits for the backend's state 2, sets the rings up, waits for 4, and goes to 4 itself.
    /// - Throws: with all rings gone again.
    public func connect(within limit: Duration = .seconds(10)) async throws(FrontendFailure) {
        let backend = try await bus.backend()
        backendPath = backend.path
        do throws(FrontendFailure) {
            try await connect(to: backend.domain, within: limit)
        } catch {
            await abandon()
            throw error
        }
    }

    private func connect(to backend: DomainID, within limit: Duration) async throws(FrontendFailure) {
        _ = try await bus.wait(for: [.initWait], of: backendPath, within: limit)
        let offer = try await BlockOffer(reading: bus, backendPath)
        try await setUp(backend, offer)
        try await bus.publish(keys(offer))
        try await bus.publish(.initialised)
        let state = try await bus.wait(for: [.connected, .closing, .closed], of: backendPath, within: limit)
        guard state == .connected else { throw .timedOut(waitingFor: [.connected], saw: state) }
        connection = try await BlockFrontendConnection(
            reading: bus,
            backendPath,
            offer,
            options,
            backend: backend,
            ringSize: queues[0].size
        )
        try await bus.publish(.connected)
        monitor = try await BackendMonitor.start(self, bus.store, backendPath)
    }

    private func setUp(_ backend: DomainID, _ offer: BlockOffer) async throws(FrontendFailure) {
        let hypervisor = hypervisor
        let events = try FrontendDrivers.hypervisor { () throws(HypervisorFailure) in
            try hypervisor.openEventChannels()
        }
        self.events = events
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
        let waker = FrontendWaker(self)
        waker.start(loop, events.descriptor)
        self.waker = waker
    }

    private func keys(_ offer: BlockOffer) -> [(String, String?)] {
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

    // MARK: events

    /// The event channels' descriptor is readable.
    func eventsPending() {
        guard let events else { return }
        while let port = events.takePending() {
            do throws(FrontendFailure) {
                try queues.first { $0.port == port }?.takeAnswers()
            } catch {
                lastFault = error
            }
            events.unmask(port)
        }
    }

    /// The backend's state node changed: a resize, or the end (xen-blkfront.c, `blkback_changed`).
    func backendChanged() async {
        guard let keys = try? await bus.read([BusKeys.state, BlockKeys.sectors], of: backendPath),
            connection != nil
        else { return }
        switch keys[BusKeys.state].flatMap({ XenbusState(text: $0) }) {
        case .connected:
            if let sectors = keys[BlockKeys.sectors].flatMap({ UInt64(decimal: $0) }) { connection?.sectors = sectors }
        case .closing, .closed, nil:
            dropRings()
            try? await bus.publish(.closed)
        default: break
        }
    }

    // MARK: ending

    /// Forgets rings, ports and grants without a word, as a guest kernel that crashed into another one does.
    public func abandon() async {
        await monitor?.stop()
        monitor = nil
        dropRings()
    }

    private func dropRings() {
        connection = nil
        for queue in queues { queue.close() }
        queues = []
        waker?.stop()
        waker = nil
        events = nil
    }

    /// Unloads the driver: state 5, wait for the backend to close, 6.
    public func close(within limit: Duration = .seconds(10)) async throws(FrontendFailure) {
        await monitor?.stop()
        monitor = nil
        try await bus.publish(.closing)
        _ = try await bus.wait(for: [.closing, .closed], of: backendPath, within: limit)
        dropRings()
        try await bus.publish(.closed)
    }

    /// Loads the driver again after `close` or `abandon`: state 1, then as `connect`.
    public func reconnect(within limit: Duration = .seconds(10)) async throws(FrontendFailure) {
        try await bus.publish(.initialising)
        try await connect(within: limit)
    }

    /// What the kernel that kexec started does with a device it finds connected (xenbus_probe_frontend.c,
    /// `xenbus_reset_frontend`): 5, wait for 5; 6, wait for 6; 1, wait for 2. Then as `connect`.
    public func resetAndConnect(within limit: Duration = .seconds(10)) async throws(FrontendFailure) {
        await abandon()
        try await bus.publish(.closing)
        _ = try await bus.wait(for: [.closing, .closed], of: backendPath, within: limit)
        try await bus.publish(.closed)
        _ = try await bus.wait(for: [.closed, .initWait], of: backendPath, within: limit)
        try await reconnect(within: limit)
    }
}
