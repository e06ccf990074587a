// One disk: its part of the life cycle that `DeviceShell` runs. Pinned to the control loop.

internal import BackendCore
internal import HostIO
internal import Hypervisor
internal import Logging
internal import XenWire

/// The actor of one disk. Its other files connect (`+Connecting`), open images (`+Opening`, `+Backing`) and serve
/// commands (`+Commands`, `+Reports`).
actor BlockBackend: DeviceShell {
    nonisolated let path: DevicePath
    nonisolated let environment: WorkerEnvironment
    nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe environment.controlLoop.asUnownedSerialExecutor() }
    nonisolated let signal = WatchSignal()
    let capabilities: BlockCapabilities
    var life: DeviceLife

    /// What the toolstack specified; nil before `run`.
    var keys: BlockDeviceKeys?
    // What is held.
    var medium: BlockMedium?
    var connection: BlockConnection?
    var queues: [BlockQueue] = []
    var latch: BreakdownLatch?
    /// Counters of connections that are over.
    var pastMetrics = BlockMetrics()
    /// Whose disk it is; nil before an image was looked for.
    var guest: BlockGuest?
    /// Between `openBacking` and its end.
    var isOpening = false
    /// Commands that wait for their turn, and how many there ever were.
    var commands: [BlockCommand] = []
    var commandCount: UInt64 = 0

    init(_ path: DevicePath, _ environment: WorkerEnvironment, _ capabilities: BlockCapabilities) {
        self.path = path
        self.environment = environment
        self.capabilities = capabilities
        life = DeviceLife(path, environment)
    }

    func begin() async -> (frontend: String, policy: HandshakePolicy) {
        let keys = BlockDeviceKeys(
            await readKeys([
                BusKeys.frontend, BusKeys.script, BlockKeys.params, BlockKeys.mode, BlockKeys.deviceType,
                BlockKeys.removable, BlockKeys.discardEnable,
            ])
        )
        self.keys = keys
        let isDriverDomain = environment.hypervisor.domains.own != .initial
        let waitsForHotplug = keys.hasScript && !isDriverDomain
        let policy = HandshakePolicy(
            waitsForHotplug: waitsForHotplug,
            holdsInitWait: !waitsForHotplug && path.kind != .qdisk,
            removesDirectory: isDriverDomain
        )
        return (keys.frontend, policy)
    }

    var breakdown: Breakdown? { latch?.raised }
}
