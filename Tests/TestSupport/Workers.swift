// The workers of one guest in a test, one after the other.

public import BackendCore
internal import Foundation
internal import HostIO
public import Hypervisor
public import Logging
internal import Synchronization
public import SystemPackage
public import XenWire

/// Worker after worker: each has loops and buffers of its own, and what the next one finds of it is in `folder`.
public final class Workers: Sendable {
    /// The run directory.
    public let folder: FilePath
    private let hypervisor: any Hypervisor
    private let domain: DomainID
    private let logger: Logger
    private let state: Mutex<State>

    private struct State {
        var environment: WorkerEnvironment
        var retired: [WorkerEnvironment] = []
        var backends: [DevicePath: any DeviceBackend] = [:]
        var lives: [DevicePath: Task<Void, Never>] = [:]
    }

    /// The first worker.
    public init(
        _ hypervisor: any Hypervisor,
        of domain: DomainID,
        logger: Logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
    ) throws {
        folder = try FilePath.temporary()
        (self.hypervisor, self.domain, self.logger) = (hypervisor, domain, logger)
        state = Mutex(State(environment: try Workers.environment(hypervisor, domain, folder, logger)))
    }

    deinit {
        for environment in state.withLock({ $0.retired + [$0.environment] }) {
            environment.shutDown()
            environment.controlLoop.shutDown()
        }
        try? FileManager.default.removeItem(atPath: folder.string)
    }

    private static func environment(
        _ hypervisor: any Hypervisor,
        _ domain: DomainID,
        _ folder: FilePath,
        _ logger: Logger
    ) throws -> WorkerEnvironment {
        try WorkerEnvironment(
            hypervisor: hypervisor,
            domain: domain,
            controlLoop: EventLoop(name: "control"),
            runDirectory: folder,
            logger: logger,
            dataLoopLimit: 2,
            marks: CrashMarks(folder.appending("marks"))
        )
    }

    /// A new process, as far as loops and buffers go: what the last one still has in flight goes on in its own.
    public func renew() throws {
        let new = try Workers.environment(hypervisor, domain, folder, logger)
        state.withLock { state in
            state.retired.append(state.environment)
            state.environment = new
        }
    }

    /// Starts a backend in the present worker.
    @discardableResult
    public func start(
        _ path: DevicePath,
        _ make: (WorkerEnvironment) -> any DeviceBackend
    ) -> (backend: any DeviceBackend, life: Task<Void, Never>) {
        state.withLock { state in
            let backend = make(state.environment)
            let life = Task(executorPreference: state.environment.controlLoop) { await backend.run() }
            (state.backends[path], state.lives[path]) = (backend, life)
            return (backend, life)
        }
    }

    /// The backend started last for a device.
    public func backend(at path: DevicePath) -> (any DeviceBackend)? { state.withLock { $0.backends[path] } }

    /// Waits until the backend started last for a device is done.
    public func end(of path: DevicePath) async { await state.withLock { $0.lives[path] }?.value }

    /// Stops all backends in peace.
    public func drain() async {
        let (backends, lives) = state.withLock { (Array($0.backends.values), Array($0.lives.values)) }
        for backend in backends { await backend.drain() }
        for life in lives { await life.value }
    }
}
