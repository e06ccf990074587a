// The demo's stage: a simulated host with a guest that has a disk, real broker and worker processes, a real image file.

import FrontendDrivers
import HostIO
import SimulatedHost
import SimulatedHypervisor
import SystemPackage
import XenWire

#if canImport(Glibc)
    import Glibc
#endif

/// What can go wrong with the stage itself.
struct DemoFailure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

/// Everything the demo starts.
final class DemoStage: Stage {
    static let guest = DomainID(1)!

    let directory: FilePath
    let image: FilePath
    let frontend: BlockFrontend
    private let logLevel: String
    let machine: SimulatedMachine
    private let loop: EventLoop
    let toolstack: SimulatedToolstack
    private let disk: SimulatedToolstack.Disk
    private(set) var broker: ChildProcess

    init(in directory: FilePath, imageBytes: Int, logLevel: String) throws {
        self.directory = directory
        self.logLevel = logLevel
        image = directory.appending("disk.img")
        let file = try FileDescriptor.open(
            image,
            .writeOnly,
            options: [.create, .exclusiveCreate],
            permissions: .ownerReadWrite
        )
        try file.closeAfter { try file.resize(to: Int64(imageBytes)) }
        machine = try SimulatedMachine()
        try machine.createDomain(Self.guest)
        try machine.listen(at: directory.appending("machine").string)
        loop = try EventLoop(name: "guest")
        let path = DevicePath(kind: .vbd3, domain: Self.guest, index: 51712)
        disk = SimulatedToolstack.Disk(path, params: "aio:\(image)")
        toolstack = SimulatedToolstack(try machine.hypervisor(for: .initial))
        var options = BlockFrontendOptions()
        options.indirectSegments = 32
        frontend = BlockFrontend(try machine.hypervisor(for: Self.guest), loop: loop, index: 51712, options: options)
        broker = try Self.startBroker(directory, logLevel)
    }

    /// A new directory for everything the demo makes; `strike` removes it.
    static func makeDirectory() throws -> FilePath {
        let parent = unsafe getenv("TMPDIR").flatMap { unsafe String(cString: $0) } ?? "/tmp"
        var name = Array("\(parent)/xenback-demo-XXXXXX".utf8CString)
        // SAFETY: mkdtemp changes the six X in place; the array is ours and ends with a zero.
        guard unsafe mkdtemp(&name) != nil else { throw DemoFailure("no directory in \(parent): errno \(errno)") }
        return FilePath(String(decoding: name.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self))
    }

    // MARK: processes

    private static func startBroker(_ directory: FilePath, _ logLevel: String) throws(Errno) -> ChildProcess {
        try ChildProcess(spawning: [
            "/proc/self/exe", "demo-broker", "--machine", directory.appending("machine").string,
            "--run-directory", directory.appending("run").string, "--log-level", logLevel,
            "--network", directory.appending(DemoNetworkStage.folder).string,
            "--usb", directory.appending(DemoUSBStage.folder).string,
        ])
    }

    func startBroker() throws(Errno) { broker = try Self.startBroker(directory, logLevel) }

    /// Waits for the broker's end.
    func brokerEnd(within limit: Duration = .seconds(40)) async throws -> ProcessEnd {
        try await Self.value("the broker's end", within: limit) { self.broker.takeEnd() }
    }

    /// The process of a guest's worker, as its lock file names it; nil if none runs.
    func runningWorker(of guest: DomainID) -> CInt? {
        let path = directory.appending("run").appending("worker-\(guest).lock")
        guard let found = try? LockFile.look(at: path), found.isHeld else { return nil }
        return found.text.split(separator: "\n").first.flatMap { CInt(decimal: $0) }
    }

    /// The first worker that is not `other`.
    func worker(of guest: DomainID = DemoStage.guest, otherThan other: CInt? = nil) async throws -> CInt {
        try await Self.value("a worker", within: .seconds(20)) {
            guard let worker = self.runningWorker(of: guest), worker != other else { return nil }
            return worker
        }
    }

    /// Kills a guest's worker and waits for the next one.
    /// - Parameters:
    ///   - doing: what the guest was about.
    ///   - remark: what is to be said of the next one.
    /// - Returns: when it was killed.
    func killWorker(
        of guest: DomainID = DemoStage.guest,
        _ story: DemoStory,
        _ doing: String,
        then remark: String = ""
    ) async throws -> ContinuousClock.Instant {
        let worker = try await worker(of: guest)
        let time = ContinuousClock.now
        kill(worker, SIGKILL)
        story.event("worker \(worker) killed with SIGKILL, \(doing)")
        let successor = try await self.worker(of: guest, otherThan: worker)
        story.event("worker \(successor) took its place\(remark)")
        return time
    }

    private static func value<R>(_ name: String, within limit: Duration, _ get: () -> R?) async throws -> R {
        let end = ContinuousClock.now + limit
        while ContinuousClock.now < end {
            if let found = get() { return found }
            try await Task.sleep(for: .milliseconds(1))
        }
        throw DemoFailure("\(name) did not come within \(limit)")
    }

    // MARK: the disk

    /// What `xl create` and the guest's boot do.
    func attach() async throws -> BlockFrontendConnection {
        try await toolstack.attach(disk)
        try await frontend.connect()
        guard let connection = await frontend.connection else { throw DemoFailure("the disk did not connect") }
        return connection
    }

    /// What `xl block-detach` does.
    func detach() async throws { try await toolstack.detach(disk) }

    /// Ends every process and removes every file.
    func strike() async {
        await frontend.abandon()
        broker.signal(SIGTERM)
        if (try? await brokerEnd(within: .seconds(10))) == nil { broker.signal(SIGKILL) }
        for guest in [Self.guest, DemoUSBStage.domain] + DemoNetworkStage.domains {
            if let worker = runningWorker(of: guest) { kill(worker, SIGKILL) }
        }
        loop.shutDown()
        removeTree(directory)
    }
}
