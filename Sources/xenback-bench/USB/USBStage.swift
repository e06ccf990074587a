// One simulated host in this process: a bus with one device, a controller of ours as a worker serves it, and the guest.

internal import BackendCore
internal import FrontendDrivers
internal import Glibc
internal import HostIO
internal import HostUSB
internal import Logging
internal import SimulatedHost
internal import SimulatedHypervisor
internal import SystemPackage
internal import USBBackend
internal import XenWire

/// Made for one measurement; `strike` removes it.
final class USBStage {
    let frontend: RawUSBFrontend
    private let folder: FilePath
    private let machine: SimulatedMachine
    private let environment: WorkerEnvironment
    private let backend: any DeviceBackend
    private let life: Task<Void, Never>

    /// - Parameter directory: where the journal is made.
    init(in directory: FilePath) async throws {
        folder = directory.appending("xenback-bench-\(getpid())")
        try Files.makeDirectory(folder.appending("journal"), permissions: .ownerReadWriteExecute)
        guard let guest = DomainID(1), let port = USBPort(1), let address = USBBusAddress("1-1") else {
            throw BlockBenchFailure("no names")
        }
        machine = try SimulatedMachine()
        try machine.createDomain(guest)
        let host = try machine.hypervisor(for: .initial)
        let bus = SimulatedUSB()
        try bus.plug(USBSink(), at: address)
        let path = DevicePath(kind: .vusb, domain: guest, index: 0)
        var controller = SimulatedToolstack.USBController(path)
        controller.ports[port] = "\(address)"
        try await SimulatedToolstack(host).create(controller)
        environment = WorkerEnvironment(
            hypervisor: host,
            domain: guest,
            controlLoop: try EventLoop(name: "control"),
            runDirectory: folder,
            logger: Logger(label: "bench") { _ in SwiftLogNoOpLogHandler() },
            dataLoopLimit: 1
        )
        backend = USBClass(host: bus).makeBackend(path, environment)
        let backend = backend
        life = Task(executorPreference: environment.controlLoop) { await backend.run() }
        frontend = RawUSBFrontend(try machine.hypervisor(for: guest), index: 0)
    }

    func strike() async {
        await backend.drain()
        await life.value
        environment.shutDown()
        environment.controlLoop.shutDown()
        for name in ["journal", "."] {
            let directory = folder.appending(name)
            for file in (try? Files.names(in: directory)) ?? [] { try? Files.remove(directory.appending(file)) }
            _ = unsafe rmdir(directory.string)
        }
        _ = unsafe rmdir(folder.string)
    }
}
