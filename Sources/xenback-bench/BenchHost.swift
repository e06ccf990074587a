// One simulated host and one guest in this process, and what a worker has for its devices.

internal import BackendCore
internal import Glibc
internal import HostIO
internal import Logging
internal import SimulatedHost
internal import SimulatedHypervisor
internal import SystemPackage
internal import XenWire

/// Made for one measurement; `end` or `strike` removes it.
final class BenchHost: Stage {
    let domain: DomainID
    let host: SimulatedHypervisor
    let guest: SimulatedHypervisor
    let environment: WorkerEnvironment
    /// The run directory, with room for an image.
    let folder: FilePath
    private let machine: SimulatedMachine
    private var served: (backend: any DeviceBackend, life: Task<Void, Never>)?

    /// - Parameter directory: where the run directory is made.
    init(in directory: FilePath) throws {
        guard let domain = DomainID(1) else { throw BenchFailure("there is no domain 1") }
        self.domain = domain
        folder = directory.appending("xenback-bench-\(getpid())")
        try Files.makeDirectory(folder, permissions: .ownerReadWriteExecute)
        machine = try SimulatedMachine()
        try machine.createDomain(domain)
        host = try machine.hypervisor(for: .initial)
        guest = try machine.hypervisor(for: domain)
        environment = WorkerEnvironment(
            hypervisor: host,
            domain: domain,
            controlLoop: try EventLoop(name: "control"),
            runDirectory: folder,
            logger: Logger(label: "bench") { _ in SwiftLogNoOpLogHandler() },
            dataLoopLimit: 1
        )
    }

    /// Attaches a device as libxl does, and serves it as a worker does.
    func serve(_ device: some SimulatedDevice, by deviceClass: any DeviceClass) async throws {
        try await SimulatedToolstack(host).create(device)
        let backend = deviceClass.makeBackend(device.path, environment)
        served = (backend, Task(executorPreference: environment.controlLoop) { await backend.run() })
    }

    func strike() async {
        await served?.backend.drain()
        await served?.life.value
        end()
    }

    /// Where no device is served.
    func end() {
        environment.shutDown()
        environment.controlLoop.shutDown()
        removeTree(folder)
    }
}

/// What keeps a measurement from being one.
struct BenchFailure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}
