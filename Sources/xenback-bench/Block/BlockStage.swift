// One simulated host in this process: an image, a disk of ours on it as a worker serves it, and the guest.

internal import BackendCore
internal import BlockBackend
internal import FrontendDrivers
internal import Glibc
internal import HostIO
internal import Logging
internal import SimulatedHost
internal import SimulatedHypervisor
internal import SystemPackage
internal import XenWire

/// Made for one measurement; `strike` removes it.
final class BlockStage {
    let image: OpenFile
    let byteCount: Int
    let frontend: RawBlockFrontend
    private let folder: FilePath
    private let machine: SimulatedMachine
    private let environment: WorkerEnvironment
    private let backend: any DeviceBackend
    private let life: Task<Void, Never>

    /// - Parameter directory: where the image is made.
    init(in directory: FilePath, byteCount: Int) async throws {
        let name = "xenback-bench-\(getpid())"
        self.byteCount = byteCount
        folder = directory.appending(name)
        try Files.makeDirectory(folder, permissions: .ownerReadWriteExecute)
        let path = folder.appending("disk.img")
        image = try BlockStage.makeImage(path, byteCount)
        let guest = DomainID.stageGuest
        machine = try SimulatedMachine()
        try machine.createDomain(guest)
        let host = try machine.hypervisor(for: .initial)
        let device = DevicePath(kind: .vbd3, domain: guest, index: 51712)
        let toolstack = SimulatedToolstack(host)
        try await toolstack.create(SimulatedToolstack.Disk(device, params: path.string))
        environment = WorkerEnvironment(
            hypervisor: host,
            domain: guest,
            controlLoop: try EventLoop(name: "control"),
            runDirectory: folder,
            logger: Logger(label: "bench") { _ in SwiftLogNoOpLogHandler() },
            dataLoopLimit: 1
        )
        backend = BlockClass(capabilities: BlockCapabilities(maxQueues: 1)).makeBackend(device, environment)
        let backend = backend
        life = Task(executorPreference: environment.controlLoop) { await backend.run() }
        frontend = RawBlockFrontend(try machine.hypervisor(for: guest), index: device.index)
    }

    /// Written once, so that nobody pays for its first pages.
    private static func makeImage(_ path: FilePath, _ byteCount: Int) throws -> OpenFile {
        let image = try OpenFile(path: path.string, flags: O_RDWR | O_CREAT)
        let zeroes = [UInt8](repeating: 0, count: 1 << 20)
        for offset in stride(from: 0, to: byteCount, by: zeroes.count) {
            guard unsafe pwrite(image.descriptor, zeroes, zeroes.count, off_t(offset)) == zeroes.count else {
                throw Errno(rawValue: errno)
            }
        }
        return image
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

extension DomainID {
    /// The one guest.
    fileprivate static let stageGuest = DomainID(1) ?? .initial
}
