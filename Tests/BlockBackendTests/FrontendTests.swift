// The Swift blkfront on our blkback: every shape of ring, and a driver that goes and comes back.

internal import BackendCore
internal import FrontendDrivers
internal import HostIO
internal import Hypervisor
internal import SharedRing
internal import SimulatedHypervisor
internal import TestSupport
internal import Testing
internal import XenWire

@Suite(.timeLimit(.minutes(2)))
struct FrontendTests {
    /// A served disk of 4 MiB and a frontend for it.
    private final class Bed: Sendable {
        static let disk = DevicePath(kind: .vbd3, domain: guestDomain, index: 51712)
        let bed: GuestBed
        let loop: EventLoop
        let frontend: BlockFrontend
        let backend: any DeviceBackend
        private let life: Task<Void, Never>

        init(_ options: BlockFrontendOptions = .init(), limits: GrantBudget.Limits? = nil) async throws {
            bed = try limits.map { try GuestBed(limits: $0) } ?? GuestBed()
            let image = try bed.makeImage(sectors: 8192)
            try await bed.makeDevice(Self.disk, image: image)
            (backend, life) = bed.start(Self.disk)
            loop = try EventLoop(name: "guest")
            frontend = BlockFrontend(bed.guest, loop: loop, index: 51712, options: options)
        }

        func end() async {
            await backend.drain()
            await life.value
            await frontend.abandon()
            loop.shutDown()
        }
    }

    private func pattern(_ pages: PrivatePages, seed: Int) {
        pages.write((0..<pages.byteCount).map { UInt8(truncatingIfNeeded: $0 &* 13 &+ $0 / 512 &+ seed) }, at: 0)
    }

    private func differ(_ one: PrivatePages, _ other: PrivatePages, count: Int) -> Int {
        let (one, other) = (one.slot(at: 0, byteCount: count), other.slot(at: 0, byteCount: count))
        return stride(from: 0, to: count, by: 8).count { one.u64($0) != other.u64($0) }
    }

    /// Order of the ring, queues, indirect segments, persistent grants, the 32-bit layout.
    static let shapes: [(Int, Int, Int, Bool, Bool)] = [
        (0, 1, 0, false, false), (0, 1, 0, true, false), (0, 1, 256, true, false), (4, 4, 64, true, false),
        (2, 2, 32, false, false), (1, 1, 32, true, true),
    ]

    @Test(arguments: shapes)
    func whatIsWrittenComesBack(order: Int, queues: Int, segments: Int, persistent: Bool, narrow: Bool) async throws {
        var options = BlockFrontendOptions()
        options.ringPageOrder = order
        options.queueCount = queues
        options.indirectSegments = segments
        options.persistent = persistent
        options.grantsEachRequest = !persistent
        options.abi = narrow ? .x86_32 : .native
        let bed = try await Bed(options)
        try await bed.frontend.connect()
        let connection = try #require(await bed.frontend.connection)
        #expect(connection.queueCount == queues)
        #expect(connection.maxSegments == max(11, segments))
        let count = 2000
        let (out, back) = (try PrivatePages(byteCount: count * 512), try PrivatePages(byteCount: count * 512))
        pattern(out, seed: 1)
        try await bed.frontend.write(sector: 5, count: count, from: out)
        try await bed.frontend.read(sector: 5, count: count, into: back)
        #expect(differ(out, back, count: count * 512) == 0)
        try await bed.frontend.flush()
        try await bed.frontend.discard(sector: 8, count: 8)
        try await bed.frontend.read(sector: 8, count: 8, into: back)
        #expect(back.slot(at: 0, byteCount: 8).u64(0) == 0)
        #expect(await bed.frontend.lastFault == nil)
        await bed.end()
        // Nothing of the guest's is left mapped.
        #expect(bed.bed.machine.usage(of: guestDomain)?.pagesMappedByOthers == 0)
    }

    /// A guest that grants more pages for its data than may be mapped: the rest is copied, and its rings are not refused.
    @Test func dataBeyondTheBudgetIsCopied() async throws {
        var options = BlockFrontendOptions()
        options.persistent = true
        options.indirectSegments = 256
        options.ringPageOrder = 2
        let limits = GrantBudget.Limits(guestPages: 64, hostPages: 1 << 20, mappings: 1 << 20)
        let bed = try await Bed(options, limits: limits)
        try await bed.frontend.connect()
        let count = 2000
        let (out, back) = (try PrivatePages(byteCount: count * 512), try PrivatePages(byteCount: count * 512))
        for round in 0..<3 {
            pattern(out, seed: round)
            try await bed.frontend.write(sector: 5, count: count, from: out)
            try await bed.frontend.read(sector: 5, count: count, into: back)
            #expect(differ(out, back, count: count * 512) == 0)
        }
        let mapped = try #require(bed.bed.machine.usage(of: guestDomain)?.pagesMappedByOthers)
        #expect(mapped > 8 && mapped <= 64)
        let counters = await bed.backend.report().counters
        func counter(_ name: String) -> UInt64 { counters.first { $0.name == name }?.value ?? 0 }
        #expect(counter("persistent-segments") > 0 && counter("copies") > 0)
        #expect(await bed.frontend.lastFault == nil)
        await bed.end()
        #expect(bed.bed.machine.usage(of: guestDomain)?.pagesMappedByOthers == 0)
    }

    @Test func aDriverThatIsUnloadedAndLoadedFindsItsDisk() async throws {
        let bed = try await Bed()
        try await bed.frontend.connect()
        let (out, back) = (try PrivatePages(byteCount: 4096), try PrivatePages(byteCount: 4096))
        for round in 0..<3 {
            pattern(out, seed: round)
            try await bed.frontend.write(sector: UInt64(round * 8), count: 8, from: out)
            try await bed.frontend.close()
            try await bed.frontend.reconnect()
            try await bed.frontend.read(sector: UInt64(round * 8), count: 8, into: back)
            #expect(differ(out, back, count: 4096) == 0)
        }
        await bed.end()
    }

    @Test func aKernelStartedByKexecResetsTheDiskAndGoesOn() async throws {
        let bed = try await Bed()
        try await bed.frontend.connect()
        let (out, back) = (try PrivatePages(byteCount: 4096), try PrivatePages(byteCount: 4096))
        pattern(out, seed: 3)
        try await bed.frontend.write(sector: 0, count: 8, from: out)
        try await bed.frontend.resetAndConnect()
        try await bed.frontend.read(sector: 0, count: 8, into: back)
        #expect(differ(out, back, count: 4096) == 0)
        await bed.end()
    }

    @Test func readOnlyAndBeyondTheEndAreErrorsForTheGuest() async throws {
        let bed = try await Bed()
        try await bed.frontend.connect()
        let pages = try PrivatePages(byteCount: 4096)
        for sector in [8192, 8185, UInt64.max - 3] {
            await #expect(throws: FrontendFailure.self) {
                try await bed.frontend.read(sector: sector, count: 8, into: pages)
            }
        }
        try await bed.frontend.read(sector: 8184, count: 8, into: pages)
        await bed.end()
    }
}
