// The block frontend against a backend in memory: what it writes comes back, in every shape of ring.

internal import FrontendDrivers
internal import HostIO
internal import Hypervisor
internal import SharedRing
internal import SimulatedHost
internal import SimulatedHypervisor
internal import Synchronization
internal import TestSupport
internal import Testing
internal import XenWire

private let guest = guestDomain

/// A guest with a disk of 4 MiB, served.
private final class Disk: Sendable {
    let machine: SimulatedMachine
    let toolstack: SimulatedToolstack
    let disk: SimulatedToolstack.Disk
    let backend: MemoryBackend
    let loop: EventLoop
    let frontend: BlockFrontend
    private let serving: Task<Void, any Error>

    init(_ options: BlockFrontendOptions = .init()) async throws {
        machine = try SimulatedMachine()
        try machine.createDomain(guest)
        let path = DevicePath(kind: .vbd3, domain: guest, index: 51712)
        let dom0 = try machine.hypervisor(for: .initial)
        toolstack = SimulatedToolstack(dom0)
        disk = SimulatedToolstack.Disk(path, params: "aio:memory")
        backend = try MemoryBackend(dom0, path, sectors: 8192)
        loop = try EventLoop(name: "frontend")
        frontend = BlockFrontend(try machine.hypervisor(for: guest), loop: loop, index: 51712, options: options)
        try await toolstack.create(disk)
        serving = Task { [backend] in try await backend.run() }
        try await frontend.connect()
    }

    /// Stops the backend; its errors are the test's.
    func end() async throws {
        await frontend.abandon()
        backend.stop()
        try await serving.value
        loop.shutDown()
    }
}

/// Bytes that differ from sector to sector.
private func pattern(_ pages: PrivatePages, _ count: Int, seed: UInt8 = 0) {
    pages.write((0..<count).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 / 512) ^ seed }, at: 0)
}

private func bytes(_ pages: PrivatePages, _ count: Int) -> [UInt8] {
    let slot = pages.slot(at: 0, byteCount: count)
    return (0..<count).map { slot.u8($0) }
}

@Suite struct BlockFrontendTests {
    static let shapes: [(BlockABI, Int, Int, Int, Bool)] = [
        (.native, 0, 1, 0, false), (.native, 0, 1, 32, false), (.native, 2, 2, 64, false), (.x86_32, 0, 1, 0, false),
        (.x86_32, 1, 1, 32, true), (.native, 1, 2, 32, true),
    ]

    @Test(arguments: shapes)
    func whatIsWrittenComesBack(abi: BlockABI, order: Int, queues: Int, segments: Int, fresh: Bool) async throws {
        var options = BlockFrontendOptions()
        options.abi = abi
        options.ringPageOrder = order
        options.queueCount = queues
        options.indirectSegments = segments
        options.grantsEachRequest = fresh
        let disk = try await Disk(options)
        let connection = try #require(await disk.frontend.connection)
        #expect(connection.sectors == 8192)
        #expect(connection.queueCount == queues)
        #expect(connection.maxSegments == max(11, segments))
        #expect(connection.ringSize == BackRing.slots(pageCount: 1 << order, stride: abi.requestSize))
        let count = 600 * 512
        let (out, back) = (try PrivatePages(byteCount: count), try PrivatePages(byteCount: count))
        pattern(out, count)
        try await disk.frontend.write(sector: 3, count: 600, from: out)
        try await disk.frontend.read(sector: 3, count: 600, into: back)
        #expect(bytes(back, count) == bytes(out, count))
        try await disk.frontend.flush()
        try await disk.frontend.write(sector: 3, count: 1, from: out, at: 512, barrier: true)
        try await disk.frontend.discard(sector: 4, count: 2)
        try await disk.frontend.read(sector: 3, count: 3, into: back)
        #expect(Array(bytes(back, 512)) == Array(bytes(out, 1024)[512...]))
        #expect(bytes(back, 1536)[512...].allSatisfy { $0 == 0 })
        let operations = Set(disk.backend.served.map(\.operation))
        #expect(operations == [.write, .read, .flushDiskCache, .writeBarrier, .discard])
        #expect(disk.backend.served.map(\.segments).max() == max(11, segments))
        try await disk.end()
        #expect(disk.machine.usage(of: guest)?.ports == 0)
        #expect(disk.machine.usage(of: guest)?.grantedPages == 0)
    }

    @Test func manyRequestsAtOnceFindTheirOwnAnswers() async throws {
        var options = BlockFrontendOptions()
        options.requestsPerQueue = 4
        let disk = try await Disk(options)
        try await withThrowingTaskGroup(of: Bool.self) { group in
            for number in 0..<64 {
                group.addTask {
                    let (out, back) = (try PrivatePages(byteCount: 4096), try PrivatePages(byteCount: 4096))
                    pattern(out, 4096, seed: UInt8(number))
                    try await disk.frontend.write(sector: UInt64(number * 8), count: 8, from: out)
                    try await disk.frontend.read(sector: UInt64(number * 8), count: 8, into: back)
                    return bytes(out, 4096) == bytes(back, 4096)
                }
            }
            for try await same in group { #expect(same) }
        }
        #expect(disk.backend.served.count == 128)
        try await disk.end()
    }

    @Test func errorsAndAbsentFeaturesAreTold() async throws {
        let disk = try await Disk()
        disk.backend.status.withLock { $0 = .error }
        let pages = try PrivatePages(byteCount: 4096)
        await #expect(throws: FrontendFailure.self) { try await disk.frontend.read(sector: 0, count: 8, into: pages) }
        await #expect(throws: FrontendFailure.self) {
            try await disk.frontend.discard(sector: 0, count: 8, secure: true)
        }
        await disk.frontend.abandon()
        await #expect(throws: FrontendFailure.self) { try await disk.frontend.read(sector: 0, count: 8, into: pages) }
        try await disk.end()
    }

    @Test func aResizeIsNoticedAndAClosingBackendIsFollowed() async throws {
        let disk = try await Disk()
        try await disk.backend.write([("sectors", "16384"), ("state", "4")])
        #expect(await eventually { await disk.frontend.connection?.sectors == 16384 })
        try await disk.backend.write([("state", "5")])
        #expect(await eventually { await disk.frontend.connection == nil })
        let state = try await disk.frontend.bus.wait(for: [.closed], of: disk.disk.path.frontend)
        #expect(state == .closed)
        try await disk.end()
    }

    @Test func aSilentBackendIsATimeout() async throws {
        let machine = try SimulatedMachine()
        try machine.createDomain(guest)
        let toolstack = SimulatedToolstack(try machine.hypervisor(for: .initial))
        let disk = SimulatedToolstack.Disk(DevicePath(kind: .vbd3, domain: guest, index: 51712), params: "")
        try await toolstack.create(disk)
        let loop = try EventLoop(name: "frontend")
        defer { loop.shutDown() }
        let frontend = BlockFrontend(try machine.hypervisor(for: guest), loop: loop, index: 51712)
        await #expect(throws: FrontendFailure.self) { try await frontend.connect(within: .milliseconds(50)) }
    }
}
