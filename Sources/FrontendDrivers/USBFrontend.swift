// xen-hcd in Swift: connects to a USB backend, sends URBs through its ring, hears what is plugged in.

public import HostIO
public import Hypervisor
internal import SharedRing
public import XenWire

/// A USB frontend on one loop. It behaves as Linux's xen-hcd does on the wire and in XenStore.
public actor USBFrontend: PVFrontend {
    public nonisolated let loop: EventLoop
    public nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }
    public nonisolated let bus: FrontendBus
    public nonisolated let hypervisor: any Hypervisor
    public let options: USBFrontendOptions

    /// nil while not connected.
    public private(set) var connection: USBFrontendConnection?
    public var link = FrontendLink()
    /// All events of the ports, in order, for one listener. At most 1024 wait; older ones are lost then.
    public nonisolated let portEvents: AsyncStream<USBPortEvent>
    private nonisolated let portEventsEnd: AsyncStream<USBPortEvent>.Continuation
    var urbs: URBFrontRing?
    /// By port.
    private var speeds: [USBIFSpeed] = []
    /// The address that the next device gets: 1 … 127.
    var nextAddress: UInt8 = 1
    private var connections: ConnectionFrontRing?
    private var port: EventChannelPort?

    /// - Parameters:
    ///   - hypervisor: as seen from the guest.
    ///   - index: the device number, 0 for the first controller.
    public init(_ hypervisor: any Hypervisor, loop: EventLoop, index: UInt32, options: USBFrontendOptions = .init()) {
        self.hypervisor = hypervisor
        self.loop = loop
        self.options = options
        bus = FrontendBus(store: hypervisor.store, path: "device/vusb/\(index)")
        let stream = AsyncStream<USBPortEvent>.makeStream(bufferingPolicy: .bufferingNewest(1024))
        portEvents = stream.stream
        portEventsEnd = stream.continuation
    }

    // MARK: connecting

    public var isConnected: Bool { connection != nil }

    /// xen-hcd does not mind a backend that has gone further.
    public static var openStates: [XenbusState] { [.initWait, .initialised, .connected] }

    /// State 2, 3 or 4 of the backend, our 4 with the rings, its 4.
    public func establish(with backend: DomainID, within limit: Duration) async throws(FrontendFailure) {
        let keys = try await bus.read([USBKeys.version, USBKeys.portCount], of: link.backendPath)
        guard let shape = USBControllerShape(version: keys[USBKeys.version], portCount: keys[USBKeys.portCount]) else {
            throw .badKey(USBKeys.version, value: keys[USBKeys.version])
        }
        speeds = Array(repeating: .none, count: shape.portCount)
        try setUp(backend)
        try await bus.publish(self.keys)
        connection = USBFrontendConnection(version: shape.version, portCount: shape.portCount, backend: backend)
        if connections?.post() == true, let port { link.events?.notify(port) }
        try await bus.publish(.connected)
        try await awaitConnected(within: limit)
    }

    private func setUp(_ backend: DomainID) throws(FrontendFailure) {
        let events = try openEvents()
        let port = try FrontendDrivers.hypervisor { () throws(HypervisorFailure) in try events.allocate(for: backend) }
        self.port = port
        urbs = try URBFrontRing(
            hypervisor: hypervisor,
            events: events,
            port: port,
            backend: backend,
            options: options
        )
        connections = try ConnectionFrontRing(hypervisor: hypervisor, backend: backend)
    }

    private var keys: [(String, String?)] {
        guard let urbs, let connections, let port else { return [] }
        return [
            (USBKeys.urbRingReference, "\(urbs.grant.references[0].rawValue)"),
            (USBKeys.connectionRingReference, "\(connections.grant.references[0].rawValue)"),
            (BusKeys.eventChannel, "\(port.rawValue)"),
            (USBKeys.protocol, options.protocol),
        ]
    }

    // MARK: ports

    /// What is plugged into a port now.
    public func speed(of port: USBPort) -> USBIFSpeed {
        speeds.indices.contains(port.index) ? speeds[port.index] : .none
    }

    /// Waits until something is plugged into a port, or until nothing is.
    /// - Throws: `closed` if that has not happened within `limit`.
    @discardableResult
    public func waitForDevice(
        on port: USBPort,
        present: Bool = true,
        within limit: Duration = .seconds(10)
    ) async throws(FrontendFailure) -> USBIFSpeed {
        let end = ContinuousClock.now + limit
        while (speed(of: port) != .none) != present {
            guard connection != nil, ContinuousClock.now < end else { throw .closed }
            try? await Task.sleep(for: .milliseconds(1))
        }
        return speed(of: port)
    }

    // MARK: what happens to it

    public func eventArrived(on port: EventChannelPort) throws(FrontendFailure) {
        urbs?.statistics.events += 1
        try urbs?.takeAnswers()
        try takePortEvents()
    }

    private func takePortEvents() throws(FrontendFailure) {
        guard let connections, let connection, let port else { return }
        let tell = try connections.takeEvents(
            { event in
                urbs?.statistics.portEvents += 1
                speeds[event.port.index] = event.speed
                portEventsEnd.yield(event)
            },
            portCount: connection.portCount
        )
        if tell {
            urbs?.statistics.notifications += 1
            link.events?.notify(port)
        }
    }

    public func releaseRings() {
        connection = nil
        speeds = []
        urbs?.close()
        urbs = nil
        connections = nil
        if let port { link.events?.unbind(port) }
        port = nil
    }
}
