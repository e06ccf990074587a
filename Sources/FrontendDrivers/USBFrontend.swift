// xen-hcd in Swift: connects to a USB backend, sends URBs through its ring, hears what is plugged in.

public import HostIO
public import Hypervisor
internal import SharedRing
public import XenWire

/// A USB frontend on one loop. It behaves as Linux's xen-hcd does on the wire and in XenStore.
public actor USBFrontend: WokenFrontend {
    public nonisolated let loop: EventLoop
    public nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }
    public nonisolated let bus: FrontendBus
    private let hypervisor: any Hypervisor
    public let options: USBFrontendOptions

    /// nil while not connected.
    public private(set) var connection: USBFrontendConnection?
    /// What a ring told us that no backend may say. xen-hcd stops using the controller at such a moment.
    public private(set) var lastFault: FrontendFailure?
    /// All events of the ports, in order, for one listener. At most 1024 wait; older ones are lost then.
    public nonisolated let portEvents: AsyncStream<USBPortEvent>
    private nonisolated let portEventsEnd: AsyncStream<USBPortEvent>.Continuation
    var urbs: URBFrontRing?
    /// By port.
    private var speeds: [USBIFSpeed] = []
    /// The address that the next device gets: 1 … 127.
    var nextAddress: UInt8 = 1
    private var connections: ConnectionFrontRing?
    private var events: (any EventChannels)?
    private var port: EventChannelPort?
    private var waker: FrontendWaker?
    private var backendPath = ""
    private var monitor: BackendMonitor?

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

    /// Waits for the backend's state 2 (or 3, or 4), sets the rings up, goes to 4, and waits for the backend to do so.
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
        _ = try await bus.wait(for: [.initWait, .initialised, .connected], of: backendPath, within: limit)
        let keys = try await bus.read([USBKeys.version, USBKeys.portCount], of: backendPath)
        guard let shape = USBControllerShape(version: keys[USBKeys.version], portCount: keys[USBKeys.portCount]) else {
            throw .badKey(USBKeys.version, value: keys[USBKeys.version])
        }
        speeds = Array(repeating: .none, count: shape.portCount)
        try setUp(backend)
        try await bus.publish(self.keys)
        connection = USBFrontendConnection(version: shape.version, portCount: shape.portCount, backend: backend)
        if connections?.post() == true, let port { events?.notify(port) }
        try await bus.publish(.connected)
        let state = try await bus.wait(for: [.connected, .closing, .closed], of: backendPath, within: limit)
        guard state == .connected else { throw .timedOut(waitingFor: [.connected], saw: state) }
        monitor = try await BackendMonitor.start(self, bus.store, backendPath)
    }

    private func setUp(_ backend: DomainID) throws(FrontendFailure) {
        let hypervisor = hypervisor
        let (events, port) = try FrontendDrivers.hypervisor { () throws(HypervisorFailure) in
            let events = try hypervisor.openEventChannels()
            return (events, try events.allocate(for: backend))
        }
        urbs = try URBFrontRing(
            hypervisor: hypervisor,
            events: events,
            port: port,
            backend: backend,
            options: options
        )
        connections = try ConnectionFrontRing(hypervisor: hypervisor, backend: backend)
        (self.events, self.port) = (events, port)
        let waker = FrontendWaker(self)
        waker.start(loop, events.descriptor)
        self.waker = waker
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

    // MARK: events

    /// The event channel's descriptor is readable.
    func eventsPending() {
        guard let events else { return }
        while let port = events.takePending() {
            urbs?.statistics.events += 1
            do throws(FrontendFailure) {
                try urbs?.takeAnswers()
                try takePortEvents()
            } catch {
                lastFault = error
            }
            events.unmask(port)
        }
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
            events?.notify(port)
        }
    }

    /// The backend's state node changed (xen-hcd.c, `xenhcd_backend_changed`).
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
        speeds = []
        urbs?.close()
        urbs = nil
        connections = nil
        waker?.stop()
        waker = nil
        if let port { events?.unbind(port) }
        (events, port) = (nil, nil)
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

    /// What the kernel that kexec started does with a controller it finds connected; see `BlockFrontend`.
    public func resetAndConnect(within limit: Duration = .seconds(10)) async throws(FrontendFailure) {
        await abandon()
        try await bus.publish(.closing)
        _ = try await bus.wait(for: [.closing, .closed], of: backendPath, within: limit)
        try await bus.publish(.closed)
        _ = try await bus.wait(for: [.closed, .initWait], of: backendPath, within: limit)
        try await reconnect(within: limit)
    }
}
