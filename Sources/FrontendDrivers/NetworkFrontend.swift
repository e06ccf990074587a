// netfront in Swift: connects to a network backend, sends and receives packets through its rings.

public import HostIO
public import Hypervisor
internal import SharedRing
public import XenWire

/// A network frontend on one loop. It behaves as Linux's xen-netfront does on the wire and in XenStore.
public actor NetworkFrontend: PVFrontend {
    /// Called on the loop with each received packet; must return soon.
    public typealias Receiver = @Sendable (NetworkPacket) -> Void

    public nonisolated let loop: EventLoop
    public nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }
    public nonisolated let bus: FrontendBus
    public nonisolated let hypervisor: any Hypervisor
    public let options: NetworkFrontendOptions

    /// nil while not connected.
    public private(set) var connection: NetworkFrontendConnection?
    public var link = FrontendLink()
    var queues: [NetworkFrontQueue] = []
    var control: NetworkControlRing?
    var receiver: Receiver?
    var inbox = NetworkInbox()

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

    public var isConnected: Bool { connection != nil }

    /// State 2 of the backend, our 4 with the rings and the first buffers, its 4.
    public func establish(with backend: DomainID, within limit: Duration) async throws(FrontendFailure) {
        let offer = try await OfferedNetworkFeatures(reading: bus, link.backendPath, options)
        try setUp(backend, offer)
        try await bus.publish(offer.keys(queues, control, options))
        for queue in queues {
            queue.post()
            queue.kick()
        }
        try await bus.publish(.connected)
        try await awaitConnected(within: limit)
        connection = offer.connection(queues.count, backend)
    }

    private func setUp(_ backend: DomainID, _ offer: OfferedNetworkFeatures) throws(FrontendFailure) {
        let events = try openEvents()
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
    }

    // MARK: what happens to it

    public func eventArrived(on port: EventChannelPort) throws(FrontendFailure) {
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

    public func releaseRings() {
        connection = nil
        for queue in queues { queue.close() }
        queues = []
        control?.close()
        control = nil
        inbox.close()
    }
}
