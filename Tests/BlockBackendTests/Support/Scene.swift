// Two disks on one worker: the one that is abused, and the bystander that must not notice.

internal import BackendCore
internal import BlockBackend
internal import Hypervisor
internal import SystemPackage
internal import TestSupport
internal import Testing
internal import XenWire

final class Scene {
    static let victimPath = DevicePath(kind: .vbd3, domain: guestDomain, index: 51712)
    static let bystanderPath = DevicePath(kind: .vbd3, domain: guestDomain, index: 51728)

    let bed: GuestBed
    let image: FilePath
    let sectors: Int
    let frontend: TestFrontend
    let bystander: TestFrontend
    let backend: any DeviceBackend
    private let other: any DeviceBackend
    private let lives: [Task<Void, Never>]

    init(
        sectors: Int = 2048,
        queues: Int = 1,
        ringOrder: Int = 0,
        persistent: Bool = false,
        abi: BlockABI = .native,
        capabilities: BlockCapabilities = BlockCapabilities(maxQueues: 4),
        image: FilePath? = nil,
        inMemory: Bool = false,
        mode: String = "w",
        extra: [String: String] = [:],
        connects: Bool = true
    ) async throws {
        bed = try GuestBed()
        self.sectors = sectors
        self.image = try image ?? bed.makeImage(sectors: sectors, inMemory: inMemory)
        try await bed.makeDevice(Scene.victimPath, image: self.image, mode: mode, extra: extra)
        try await bed.makeDevice(Scene.bystanderPath, image: try bed.makeImage("b.img", sectors: 256))
        let victim = bed.start(Scene.victimPath, capabilities: capabilities)
        let other = bed.start(Scene.bystanderPath)
        backend = victim.backend
        self.other = other.backend
        lives = [victim.life, other.life]
        frontend = try TestFrontend(
            bed.guest,
            Scene.victimPath,
            abi: abi,
            queues: queues,
            ringOrder: ringOrder,
            dataPages: 512
        )
        bystander = try TestFrontend(bed.guest, Scene.bystanderPath)
        try #require(try await bystander.connect(), "\(bed.logs.all)")
        if connects { try #require(try await frontend.connect(persistent: persistent), "\(bed.logs.all)") }
    }

    /// The bystander serves on; then both end.
    func end(victimServes: Bool = true, sourceLocation: SourceLocation = #_sourceLocation) async throws {
        let pattern = [UInt8](repeating: 0xA5, count: 4096)
        #expect(try await bystander.write(pattern, at: 8) == .okay, "the bystander", sourceLocation: sourceLocation)
        #expect(
            try await bystander.read(4096, at: 8, page: 20) == pattern,
            "the bystander",
            sourceLocation: sourceLocation
        )
        if victimServes {
            #expect(try await frontend.write(pattern, at: 0) == .okay, "the victim", sourceLocation: sourceLocation)
        }
        await backend.drain()
        await other.drain()
        for life in lives { await life.value }
    }

    func counter(_ name: String) async -> UInt64 {
        await backend.report().counters.first { $0.name == name }?.value ?? .max
    }
}
