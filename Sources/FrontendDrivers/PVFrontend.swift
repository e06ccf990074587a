// The life cycle of a frontend device, which all classes share: connect, follow the backend's state, close, reconnect.

public import HostIO
public import Hypervisor
public import XenWire

/// A frontend of one device on one loop. A class says how it sets its rings up and what it does with events; the rest,
/// which Linux's xenbus_client.c and each driver's `…_changed` do, is here.
public protocol PVFrontend: Actor {
    nonisolated var loop: EventLoop { get }
    /// The device's half of XenStore.
    nonisolated var bus: FrontendBus { get }
    nonisolated var hypervisor: any Hypervisor { get }
    /// This protocol's state in the frontend; for nobody else.
    var link: FrontendLink { get set }
    /// Whether the rings are set up and the backend has come to state 4.
    var isConnected: Bool { get }

    /// States of the backend in which a frontend may set its rings up.
    static var openStates: [XenbusState] { get }
    /// Keys of the backend's directory that are read with its state, for `backendRepublished`.
    static var watchedKeys: [String] { get }

    /// Reads the backend's offer, makes rings and ports, publishes, and returns with both sides at 4.
    /// - Throws: keeping whatever it has made so far; `releaseRings` follows.
    func establish(with backend: DomainID, within limit: Duration) async throws(FrontendFailure)
    /// An event of one of the ports, before it is unmasked.
    func eventArrived(on port: EventChannelPort) throws(FrontendFailure)
    /// The backend wrote its state 4 once more.
    func backendRepublished(_ keys: [String: String])
    /// The backend went to 7 or 8, or is there still.
    func backendReconfigures(_ state: XenbusState) async
    /// Drops rings, ports and grants.
    func releaseRings()
}

/// What a frontend's life needs beside its rings.
public struct FrontendLink {
    /// The backend's directory; empty before the first `connect`.
    var backendPath = ""
    var lastFault: FrontendFailure?
    var events: (any EventChannels)?
    private var waker: FrontendWaker?
    private var monitor: BackendMonitor?

    init() {}

    /// On the frontend's loop.
    fileprivate mutating func wake(_ frontend: some PVFrontend, by events: any EventChannels) {
        let waker = FrontendWaker(frontend)
        waker.start(frontend.loop, events.descriptor)
        self.waker = waker
    }

    fileprivate mutating func listen(_ monitor: BackendMonitor) { self.monitor = monitor }

    fileprivate mutating func takeMonitor() -> BackendMonitor? {
        defer { monitor = nil }
        return monitor
    }

    fileprivate mutating func drop() {
        waker?.stop()
        waker = nil
        events = nil
    }
}

extension PVFrontend {
    public static var openStates: [XenbusState] { [.initWait] }
    public static var watchedKeys: [String] { [] }
    public func backendRepublished(_ keys: [String: String]) {}
    public func backendReconfigures(_ state: XenbusState) async {}

    /// A protocol violation by the backend. Linux's drivers stop using the device then.
    public var lastFault: FrontendFailure? { link.lastFault }

    // MARK: connecting

    /// Waits until the backend is ready, sets the rings up, and goes to state 4 with it.
    /// - Throws: with all rings gone again.
    public func connect(within limit: Duration = .seconds(10)) async throws(FrontendFailure) {
        let backend = try await bus.backend()
        link.backendPath = backend.path
        do throws(FrontendFailure) {
            _ = try await bus.wait(for: Self.openStates, of: backend.path, within: limit)
            try await establish(with: backend.domain, within: limit)
            link.listen(try await BackendMonitor.start(self, bus.store, backend.path))
        } catch {
            await abandon()
            throw error
        }
    }

    /// Opens the event channels for a new connection and has their events brought here.
    func openEvents() throws(FrontendFailure) -> any EventChannels {
        let hypervisor = hypervisor
        let events = try FrontendDrivers.hypervisor { () throws(HypervisorFailure) in
            try hypervisor.openEventChannels()
        }
        link.events = events
        link.wake(self, by: events)
        return events
    }

    /// Waits for the backend's state 4.
    func awaitConnected(within limit: Duration) async throws(FrontendFailure) {
        let wanted: [XenbusState] = [.connected, .closing, .closed]
        let state = try await bus.wait(for: wanted, of: link.backendPath, within: limit)
        guard state == .connected else { throw .timedOut(waitingFor: [.connected], saw: state) }
    }

    // MARK: events

    /// The event channels' descriptor is readable.
    func eventsPending() {
        guard let events = link.events else { return }
        while let port = events.takePending() {
            do throws(FrontendFailure) {
                try eventArrived(on: port)
            } catch {
                link.lastFault = error
            }
            events.unmask(port)
        }
    }

    /// The backend's state node changed.
    func backendChanged() async {
        guard let keys = try? await bus.read([BusKeys.state] + Self.watchedKeys, of: link.backendPath), isConnected
        else { return }
        switch keys[BusKeys.state].flatMap({ XenbusState(text: $0) }) {
        case .connected: backendRepublished(keys)
        case .closing, .closed, nil:
            dropRings()
            try? await bus.publish(.closed)
        case .reconfiguring: await backendReconfigures(.reconfiguring)
        case .reconfigured: await backendReconfigures(.reconfigured)
        default: break
        }
    }

    // MARK: ending

    /// Drops rings, ports and grants without notice, as a guest kernel that crashed into another one does.
    public func abandon() async {
        await link.takeMonitor()?.stop()
        dropRings()
    }

    private func dropRings() {
        releaseRings()
        link.drop()
    }

    /// Unloads the driver: state 5, wait for the backend to close, 6.
    public func close(within limit: Duration = .seconds(10)) async throws(FrontendFailure) {
        await link.takeMonitor()?.stop()
        try await bus.publish(.closing)
        _ = try await bus.wait(for: [.closing, .closed], of: link.backendPath, within: limit)
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
        _ = try await bus.wait(for: [.closing, .closed], of: link.backendPath, within: limit)
        try await bus.publish(.closed)
        _ = try await bus.wait(for: [.closed, .initWait], of: link.backendPath, within: limit)
        try await reconnect(within: limit)
    }
}
