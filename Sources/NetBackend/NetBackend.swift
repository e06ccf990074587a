// One network card: its part of the life cycle that `DeviceShell` runs. Pinned to the control loop.

internal import BackendCore
internal import HostIO
internal import HostNetwork
internal import Hypervisor
internal import Logging
internal import XenWire

/// The actor of one card. Its other files connect (`+Connecting`), make the interface (`+Backing`) and report
/// (`+Reports`).
actor NetBackend: InterfaceShell {
    nonisolated let path: DevicePath
    nonisolated let environment: WorkerEnvironment
    nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe environment.controlLoop.asUnownedSerialExecutor() }
    nonisolated let signal = WatchSignal()
    let capabilities: NetCapabilities
    let host: any NetworkHost
    let stall: StallTimes
    var life: DeviceLife

    /// What the toolstack specified; nil before `run`.
    var keys: NetDeviceKeys?
    // What is held.
    var interface: (any PacketDevice)?
    /// From the first connection until the interface is removed.
    var placeWatch: PlaceWatch?
    /// Changes of the interface that were undone.
    var placeRepairs: UInt64 = 0
    var connection: NetConnection?
    var shared: NetSharedState?
    var queues: [NetQueue] = []
    /// The kernel's threads for the queues; empty where packets go by system calls, for that reason.
    var ports: [VhostPort] = []
    var plainReason: String?
    var control: NetControlQueue?
    var latch: BreakdownLatch?
    /// Counters of connections that are over.
    var pastMetrics = NetMetrics()

    /// - Parameter stall: only tests have other times.
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

    /// We, and no script, put the interface into its bridge or route.
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
