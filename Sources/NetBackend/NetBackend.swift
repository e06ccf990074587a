// One network card: what is its own in the life that `DeviceShell` leads. Pinned to the control loop.

internal import BackendCore
internal import HostIO
internal import HostNetwork
internal import Hypervisor
internal import Logging
internal import XenWire

/// The actor of one card. The files beside connect (`+Connecting`), make the interface (`+Backing`) and report
/// (`+Reports`).
actor NetBackend: DeviceShell {
    nonisolated let path: DevicePath
    nonisolated let environment: WorkerEnvironment
    nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe environment.controlLoop.asUnownedSerialExecutor() }
    nonisolated let signal = WatchSignal()
    let capabilities: NetCapabilities
    let host: any NetworkHost
    let stall: StallTimes
    var life: DeviceLife

    /// Facts from the toolstack; nil before `run`.
    var keys: NetDeviceKeys?
    // What is held.
    var interface: (any PacketDevice)?
    /// From the first connection until the interface is taken away.
    var placeWatch: PlaceWatch?
    /// Changes of the interface that were undone.
    var placeRepairs: UInt64 = 0
    var connection: NetConnection?
    var shared: NetSharedState?
    var queues: [NetQueue] = []
    var control: NetControlQueue?
    var latch: BreakdownLatch?
    /// Counters of connections that are over.
    var pastMetrics = NetMetrics()

    /// - Parameter stall: other times are for tests.
    init(
        _ path: DevicePath,
        _ environment: WorkerEnvironment,
        _ capabilities: NetCapabilities,
        _ host: any NetworkHost,
        stall: StallTimes = .usual
    ) {
        self.path = path
        self.environment = environment
        self.capabilities = capabilities
        self.host = host
        self.stall = stall
        life = DeviceLife(path, environment)
    }

    func begin() async -> (frontend: String, policy: HandshakePolicy) {
        let keys = NetDeviceKeys(await readKeys(NetDeviceKeys.names))
        self.keys = keys
        let policy = HandshakePolicy(
            waitsForHotplug: keys.script != nil && !isPlacedNatively,
            removesDirectory: isDriverDomain,
            opensBeforeInitWait: true,
            ignoresInitialised: true
        )
        return (keys.frontend, policy)
    }

    var isDriverDomain: Bool { environment.hypervisor.domains.own != .initial }

    /// We put the interface into its bridge or route, no script does.
    var isPlacedNatively: Bool {
        switch capabilities.placement {
        case .automatic: isDriverDomain
        case .script: false
        case .native: true
        }
    }

    var watchedKeys: [String] {
        [path.key(NetKeys.rate), "\(keys?.frontend ?? path.frontend)/\(NetKeys.requestMulticastControl)"]
    }

    var breakdown: Breakdown? { latch?.raised }
}
