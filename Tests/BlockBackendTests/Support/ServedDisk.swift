// One disk that is served and the guest's driver on it: what most tests of a disk's life begin with.

internal import BackendCore
internal import HostIO
internal import Hypervisor
internal import SystemPackage
internal import TestSupport
internal import Testing
internal import XenWire

@testable internal import BlockBackend

final class ServedDisk {
    static let path = DevicePath(kind: .vbd3, domain: guestDomain, index: 51712)

    let bed: GuestBed
    let image: FilePath
    var journal: FilePath { bed.folder.appending("journal").appending("vbd3-7-51712") }
    let frontend: TestFrontend
    private(set) var backend: any DeviceBackend
    private var life: Task<Void, Never>

    /// - Parameter connects: false leaves the frontend's driver unloaded.
    init(
        sectors: Int = 1024,
        inMemory: Bool = false,
        queues: Int = 1,
        ringOrder: Int = 0,
        dataPages: Int = 64,
        persistent: Bool = false,
        mode: String = "w",
        extra: [String: String] = [:],
        connects: Bool = true
    ) async throws {
        bed = try GuestBed()
        image = try bed.makeImage(sectors: sectors, inMemory: inMemory)
        try await bed.makeDevice(ServedDisk.path, image: image, mode: mode, extra: extra)
        (backend, life) = bed.start(ServedDisk.path)
        frontend = try TestFrontend(
            bed.guest,
            ServedDisk.path,
            queues: queues,
            ringOrder: ringOrder,
            dataPages: dataPages
        )
        if connects { try #require(try await frontend.connect(persistent: persistent), "\(bed.logs.all)") }
    }

    /// Another driver of the same guest, with rings of its own.
    func anotherFrontend() throws -> TestFrontend { try TestFrontend(bed.guest, ServedDisk.path) }

    /// What the death of the worker's process does.
    func die() async throws {
        try await #require(backend as? BlockBackend).abandon()
        await life.value
    }

    /// Ends as at an upgrade: drained, XenStore as it is.
    func stop() async {
        await backend.drain()
        await life.value
    }

    /// A successor takes over.
    /// - Parameter inNewProcess: with loops of its own, while what the last one has in flight goes on.
    func succeed(inNewProcess: Bool = false) throws {
        if inNewProcess { try bed.workers.renew() }
        (backend, life) = bed.start(ServedDisk.path)
    }

    /// The backend has ended by itself.
    func ended() async { await life.value }
}
