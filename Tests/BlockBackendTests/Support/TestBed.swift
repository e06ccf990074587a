// A simulated host with disks of ours, for tests that play the guest.

internal import BackendCore
internal import BlockBackend
internal import Foundation
internal import HostIO
internal import Hypervisor
internal import Logging
internal import SimulatedHypervisor
internal import Synchronization
internal import SystemPackage
internal import TestSupport
internal import XenWire

let guestDomain = DomainID(7)!

/// Keeps log lines, so that a test can ask what was said.
final class LogLines: Sendable {
    private let lines = Mutex<[String]>([])
    var all: [String] { lines.withLock { $0 } }
    func contains(_ text: String) -> Bool { all.contains { $0.contains(text) } }
    func count(_ text: String) -> Int { all.count { $0.contains(text) } }
    fileprivate func append(_ line: String) { lines.withLock { $0.append(line) } }

    var logger: Logger {
        let lines = self
        return Logger(label: "test") { _ in Recorder(lines: lines) }
    }

    private struct Recorder: LogHandler {
        let lines: LogLines
        var metadata: Logger.Metadata = [:]
        var logLevel = Logger.Level.debug
        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { metadata[key] }
            set { metadata[key] = newValue }
        }
        func log(event: LogEvent) {
            let device = metadata["device"].map { "\($0)" } ?? "-"
            lines.append("\(device): \(event.message)")
        }
    }
}

/// One machine, one worker's surroundings, and a folder for images. Made for one test.
final class TestBed: Sendable {
    let machine: SimulatedMachine
    let host: SimulatedHypervisor
    let guest: SimulatedHypervisor
    let logs = LogLines()
    let workers: Workers

    /// - Parameter limits: of what the worker may map; nil: of nothing.
    init(limits: GrantBudget.Limits? = nil) throws {
        machine = try SimulatedMachine()
        try machine.createDomain(guestDomain)
        host = try machine.hypervisor(for: .initial)
        guest = try machine.hypervisor(for: guestDomain)
        workers = try Workers(TestBed.budgeted(host, limits), of: guestDomain, logger: logs.logger)
    }

    private static func budgeted(
        _ host: SimulatedHypervisor,
        _ limits: GrantBudget.Limits?
    ) throws -> any Hypervisor {
        guard let limits else { return host }
        let shares = try GrantShares(FilePath.temporary().appending("grants"))
        return BudgetedHypervisor(host, GrantBudget(of: guestDomain, limits, shares: shares))
    }

    deinit { try? FileManager.default.removeItem(atPath: memoryFolder.string) }

    var folder: FilePath { workers.folder }

    /// For images in memory.
    private var memoryFolder: FilePath { FilePath("/dev/shm").appending(folder.lastComponent ?? "xenback-test") }

    /// Makes an image file of `sectors` sectors of 512 bytes, on a disk's file system or on tmpfs.
    func makeImage(_ name: String = "a.img", sectors: Int, inMemory: Bool = false) throws -> FilePath {
        if inMemory { try Files.makeDirectory(memoryFolder, permissions: [.ownerReadWriteExecute]) }
        let path = (inMemory ? memoryFolder : folder).appending(name)
        let file = try FileDescriptor.open(
            path,
            .readWrite,
            options: [.create, .truncate],
            permissions: [.ownerReadWrite]
        )
        try file.resize(to: Int64(sectors) * 512)
        try file.close()
        return path
    }

    func bytes(of path: FilePath) throws -> [UInt8] { [UInt8](try Data(contentsOf: URL(fileURLWithPath: path.string))) }

    /// Writes what libxl writes for a disk: both halves' directories.
    func makeDevice(
        _ path: DevicePath,
        image: FilePath?,
        mode: String = "w",
        script: String? = nil,
        extra: [String: String] = [:]
    ) async throws {
        var keys = [
            "frontend": path.frontend, "frontend-id": "\(path.domain)", "online": "1", "state": "1",
            "removable": "0", "bootable": "1", "dev": "xvda", "type": "phy", "mode": mode, "device-type": "disk",
            "direct-io-safe": "0", "discard-enable": "1", "params": image?.string ?? "",
        ]
        keys["script"] = script
        keys.merge(extra) { $1 }
        let all = keys
        try await host.store.transaction { (store) throws(HypervisorFailure) in
            // Children take their parent's permissions when they are made.
            try store.write(path.relative, "")
            let permissions = [XenStorePermission(.initial, .none), XenStorePermission(path.domain, .read)]
            try store.setPermissions(path.relative, permissions)
            try store.write(path.frontend, "")
            let guest = [XenStorePermission(path.domain, .none), XenStorePermission(.initial, .read)]
            try store.setPermissions(path.frontend, guest)
            for (name, value) in all { try store.write(path.key(name), value) }
            try store.write("\(path.frontend)/backend", path.absolute(in: .initial))
            try store.write("\(path.frontend)/backend-id", "0")
            try store.write("\(path.frontend)/state", "1")
        }
    }

    /// Starts a backend as a worker does.
    func start(
        _ path: DevicePath,
        capabilities: BlockCapabilities = BlockCapabilities(maxQueues: 4)
    ) -> (backend: any DeviceBackend, life: Task<Void, Never>) {
        workers.start(path) {
            BlockClass(vbd: .all, servesQdisk: true, capabilities: capabilities).makeBackend(path, $0)
        }
    }

    func read(_ node: String) async throws -> String? { try await host.store.read(node) }
    func write(_ node: String, _ value: String) async throws { try await host.store.write(node, value) }

    func waitFor(_ path: DevicePath, state: XenbusState, within limit: Duration = .seconds(20)) async throws -> Bool {
        try await eventually(within: limit) { try await self.read(path.key("state")) == state.text }
    }
}
