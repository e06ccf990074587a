// A simulated host's disks: images, what libxl writes for them, and their backends.

internal import BackendCore
internal import BlockBackend
internal import Foundation
internal import HostIO
internal import Hypervisor
internal import SimulatedHost
internal import SimulatedHypervisor
internal import SystemPackage
internal import TestSupport
internal import XenWire

extension GuestBed {
    /// - Parameter limits: of what the worker may map.
    convenience init(limits: GrantBudget.Limits) throws {
        try self.init { host in
            let shares = try GrantShares(FilePath.temporary().appending("grants"))
            return BudgetedHypervisor(host, GrantBudget(of: guestDomain, limits, shares: shares))
        }
    }

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

    /// Writes what libxl writes for a disk.
    /// - Parameter extra: written last, so it replaces the usual keys.
    func makeDevice(
        _ path: DevicePath,
        image: FilePath,
        mode: String = "w",
        script: String? = nil,
        extra: [String: String] = [:]
    ) async throws {
        var disk = SimulatedToolstack.Disk(path, params: image.string)
        disk.script = script
        disk.extraBackendNodes = [(BlockKeys.mode, mode)] + extra.map { ($0.key, $0.value) }
        try await toolstack.create(disk)
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

    func waitFor(_ path: DevicePath, state: XenbusState, within limit: Duration = .seconds(20)) async throws -> Bool {
        try await eventually(within: limit) { try await self.read(path.key(BusKeys.state)) == state.text }
    }
}
