// netfront in Swift: connects to a network backend, sends and receives packets through its rings.

public import HostIO
public import Hypervisor
internal import SharedRing
internal import XenWire

/// A network frontend on one loop. It behaves as Linux's xen-netfront does on the wire and in XenStore.
public actor NetworkFrontend: WokenFrontend {
    /// Is shown each received packet, on the loop, and returns soon.
    public typealias Receiver = @Sendable (NetworkPacket) -> Void

    public nonisolated let loop: EventLoop
    public nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }
    public nonisolated let bus: FrontendBus
    private let hypervisor: any Hypervisor
    public let options: NetworkFrontendOptions

    /// nil while not connected.
    public private(set) var connection: NetworkFrontendConnection?
    /// What a ring told us that no backend may say. Linux stops using the device at such a moment.
    public private(set) var lastFault: FrontendFailure?
    var queues: [NetworkFrontQueue] = []
    var control: NetworkControlRing?
    var receiver: Receiver?
    var inbox = NetworkInbox()
    private var events: (any EventChannels)?
    private var waker: FrontendWaker?
    private var backendPath = ""
    private var monitor: BackendMonitor?

    /// - Parameters:
    ///   - hypervisor: as seen from the guest.
    ///   - index: the device number, 0 for the first card.
    public init(
        _ hypervisor: any Hypervisor,
        loop: EventLoop,
        index: UInt32,
        options: NetworkFrontendOptions = .init()
    ) {
        let (out, back) = (options.transmitBuffers, options.receiveBuffers)
        precondition((1...256).contains(out) && (1...256).contains(back) && back & (back - 1) == 0)
        self.hypervisor = hypervisor
        self.loop = loop
        self.options = options
        bus = FrontendBus(store: hypervisor.store, path: "device/vif/\(index)")
    }

    // MARK: connecting

    /// Waits for the backend's state 2, sets the rings up, goes to 4, and waits for the backend to do the same.
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
        let offer = try await NetworkOffer(reading: bus, backendPath, options)
        try setUp(backend, offer)
        try await bus.publish(offer.keys(queues, control, options))
        for queue in queues {
            queue.post()
            queue.kick()
        }
        try await bus.publish(.connected)
        let state = try await bus.wait(for: [.connected, .closing, .closed], of: backendPath, within: limit)
        guard state == .connected else { throw .timedOut(waitingFor: [.connected], saw: state) }
        connection = offer.connection(queues.count, backend)
        monitor = try await BackendMonitor.start(self, bus.store, backendPath)
    }

    private func setUp(_ backend: DomainID, _ offer: NetworkOffer) throws(FrontendFailure) {
        let hypervisor = hypervisor
        let events = try FrontendDrivers.hypervisor { () throws(HypervisorFailure) in
            try hypervisor.openEventChannels()
        }
        self.events = events
        for index in 0..<offer.queueCount {
            queues.append(
                try NetworkFrontQueue(
                    index,
                    hypervisor: hypervisor,
                    events: events,
                    backend: backend,
                    split: offer.splitEventChannels,
                    options: options
                )
            )
        }
        if offer.hasControlRing {
            control = try NetworkControlRing(hypervisor: hypervisor, events: events, backend: backend)
        }
        let waker = FrontendWaker(self)
        waker.start(loop, events.descriptor)
        self.waker = waker
    }

    // MARK: events

    /// The event channels' descriptor is readable.
    func eventsPending() {
        guard let events else { return }
        while let port = events.takePending() {
            do throws(FrontendFailure) {
                try took(port)
            } catch {
                lastFault = error
            }
            events.unmask(port)
        }
    }

    private func took(_ port: EventChannelPort) throws(FrontendFailure) {
        if port == control?.port { try control?.takeAnswers() }
        for queue in queues where queue.transmitPort == port || queue.receivePort == port {
            queue.statistics.events += 1
            if queue.transmitPort == port { try queue.takeAnswers() }
            guard queue.receivePort == port else { continue }
            if let receiver {
                try queue.takePackets(receiver)
            } else {
                try queue.takePackets { packet in
                    if !inbox.keep(packet, options.inboxCapacity) { queue.statistics.droppedByUs += 1 }
                }
            }
        }
    }

    /// The backend's state node changed (xen-netfront.c, `netback_changed`).
    func backendChanged() async {
        guard let keys = try? await bus.read([BusKeys.state], of: backendPath), connection != nil else { return }
        switch keys[BusKeys.state].flatMap({ XenbusState(text: $0) }) {
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
        control?.close()
        control = nil
        waker?.stop()
        waker = nil
        events = nil
        inbox.close()
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
}
