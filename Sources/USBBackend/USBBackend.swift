// One USB controller: its part of the life cycle that `DeviceShell` runs. Pinned to the control loop.

internal import BackendCore
internal import HostIO
internal import HostUSB
internal import Hypervisor
internal import Logging
internal import XenWire

/// The actor of one controller. Its other files connect (`+Connecting`), manage the ports (`+Backing`) and report
/// (`+Reports`).
actor USBBackend: DeviceShell {
    nonisolated let path: DevicePath
    nonisolated let environment: WorkerEnvironment
    nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe environment.controlLoop.asUnownedSerialExecutor() }
    nonisolated let signal = WatchSignal()
    let host: any USBHost
    var life: DeviceLife

    /// What the toolstack specified; nil before `run`.
    var keys: USBDeviceKeys?
    // What is held.
    /// nil before the ports are managed.
    var queue: USBQueue?
    var shape: USBControllerShape?
    var connection: USBConnection?
    var latch: BreakdownLatch?

    init(_ path: DevicePath, _ environment: WorkerEnvironment, _ host: any USBHost) {
        self.path = path
        self.environment = environment
        self.host = host
        life = DeviceLife(path, environment)
    }

    func begin() async -> (frontend: String, policy: HandshakePolicy) {
        let keys = USBDeviceKeys(await readKeys(USBDeviceKeys.names))
        self.keys = keys
        let policy = HandshakePolicy(
            waitsForHotplug: false,
            // libxl waits for state 2 of a `vusb`, and for nothing of a `qusb` (libxl_device.c,
            // `libxl__wait_device_connection`).
            holdsInitWait: path.kind == .vusb,
            removesDirectory: environment.hypervisor.domains.own != .initial
        )
        return (keys.frontend, policy)
    }

    /// All ports at once: the node above them.
    var watchedKeys: [String] { [path.key(USBKeys.ports)] }

    var breakdown: Breakdown? { latch?.raised }
}
