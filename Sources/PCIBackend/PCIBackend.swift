// The PCI buses of one guest: what they add to the life that `DeviceShell` leads. Pinned to the control loop.

internal import BackendCore
internal import HostIO
internal import HostPCI
internal import Hypervisor
internal import Logging
internal import XenWire

/// The actor of one guest's cards. The files beside connect (`+Connecting`), take and give back cards (`+Backing`), let them
/// come and go (`+Reconfiguring`) and report (`+Reports`).
actor PCIBackend: DeviceShell {
    nonisolated let path: DevicePath
    nonisolated let environment: WorkerEnvironment
    nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe environment.controlLoop.asUnownedSerialExecutor() }
    nonisolated let signal = WatchSignal()
    let host: any PCIHost
    let settings: PCISettings
    var life: DeviceLife

    // What is held.
    /// nil before the cards are taken.
    var queue: PCIQueue?
    var connection: PCIConnection?
    /// What is published of each card, by its index in the toolstack's list.
    var published: [(String, String)] = []
    /// Cards that the toolstack named and that cannot be had.
    var failed: [FunctionReport] = []
    var errorWatch: (any PCIErrorWatch)?
    /// Set while cards come or go.
    var reconfiguring: Task<Void, Never>?

    init(_ path: DevicePath, _ environment: WorkerEnvironment, _ host: any PCIHost, _ settings: PCISettings) {
        self.path = path
        self.environment = environment
        self.host = host
        self.settings = settings
        life = DeviceLife(path, environment)
    }

    func begin() async -> (frontend: String, policy: HandshakePolicy) {
        let keys = await readKeys([BusKeys.frontend])
        let policy = HandshakePolicy(
            waitsForHotplug: false,
            removesDirectory: environment.hypervisor.domains.own != .initial,
            reconfigures: true
        )
        return (keys[BusKeys.frontend] ?? path.frontend, policy)
    }

    /// While the guest is built, cards are added one by one, and nothing else changes.
    var watchedKeys: [String] { [path.key(PCIKeys.count)] }

    /// Nothing that a frontend can write into one page ends the connection.
    var breakdown: Breakdown? { nil }
}
