// A guest that does nothing but I/O: one thread, one ring, all pages granted before it begins, nothing allocated while it runs.

internal import BackendCore
internal import CBench
internal import CLinux
internal import FrontendDrivers
internal import Hypervisor
internal import SharedRing
internal import XenWire

/// The frontend's end of one connected disk. Not thread-safe; it keeps its thread busy.
struct BlockLoad: ~Copyable {
    /// Where both native layouts, direct and indirect, hold the first sector (blkif.h).
    private static let sectorOffset = 16
    static let maxDepth = 32
    static let maxSegments = 32

    private let raw: RawRing
    private let abi: BlockABI
    private var front: FrontRing
    private let data: SharedGrant
    private let indirect: SharedGrant
    /// A request for each place, and one response.
    private let slots: PrivatePages
    private var began: [UInt64]
    private var free: [Int]
    private var position: UInt64

    /// Grants everything. Connect after this: it initialises the ring's shared half.
    init(_ ring: RawRing, of frontend: RawBlockFrontend) async throws {
        let data = try await frontend.makePages(BlockLoad.maxDepth * BlockLoad.maxSegments)
        let indirect = try await frontend.makePages(BlockLoad.maxDepth)
        let slots = try PrivatePages(byteCount: (BlockLoad.maxDepth + 1) * 128)
        self.data = data
        self.indirect = indirect
        self.slots = slots
        raw = ring
        abi = frontend.abi
        began = [UInt64](repeating: 0, count: BlockLoad.maxDepth)
        free = []
        position = 1
        front = FrontRing(pages: ring.grant.pages, stride: frontend.abi.requestSize)
    }

    /// Runs one load for `nanoseconds` on an image of `byteCount` bytes.
    mutating func run(_ load: BlockWorkload, byteCount: Int, nanoseconds: UInt64) throws -> BlockFigures {
        prepare(load)
        var samples = [UInt64](repeating: 0, count: BlockWorkload.sampleCount)
        let before = bench_counts().allocations
        let start = MonotonicClock.nanoseconds
        let blocks = UInt64(byteCount / load.bytes)
        var done = 0
        while true {
            let now = MonotonicClock.nanoseconds
            if now &- start < nanoseconds { put(load, blocks, now) }
            if front.push() { raw.notify() }
            let answers = try waitForAnswers(now &- start < nanoseconds || free.count < load.depth)
            if answers == 0 { break }
            let end = MonotonicClock.nanoseconds
            for _ in 0..<answers {
                let place = try take()
                samples[done & (BlockWorkload.sampleCount - 1)] = end &- began[place]
                free.append(place)
                done += 1
            }
        }
        let end = MonotonicClock.nanoseconds
        let allocations = bench_counts().allocations &- before
        samples.removeLast(max(0, samples.count - done))
        return BlockFigures(
            requests: done,
            nanoseconds: end &- start,
            samples: samples,
            allocations: allocations
        )
    }

    /// Writes each place's request except for its sector.
    private mutating func prepare(_ load: BlockWorkload) {
        free = Array((0..<load.depth).reversed())
        free.reserveCapacity(BlockLoad.maxDepth)
        let operation: BlockOperation = load.isWriting ? .write : .read
        for place in 0..<load.depth {
            let segments = (0..<load.segments).map { page in
                BlockSegment(
                    reference: data.references[place * BlockLoad.maxSegments + page],
                    firstSector: 0,
                    lastSector: 7
                )
            }
            let slot = slots.slot(at: place * 128, byteCount: 128)
            guard segments.count > BlockWire.maxSegments else {
                abi.encode(operation, id: UInt64(place), sector: 0, segments: segments, into: slot)
                continue
            }
            abi.encodeIndirect(
                operation,
                id: UInt64(place),
                sector: 0,
                segmentCount: UInt16(segments.count),
                pages: [indirect.references[place]],
                into: slot
            )
            writeIndirect(segments, place)
        }
    }

    private func writeIndirect(_ segments: [BlockSegment], _ place: Int) {
        guard let page = try? PrivatePages(byteCount: SharedPages.pageSize) else { return }
        let count = segments.count * BlockWire.segmentSize
        BlockABI.encode(segments, into: page.slot(at: 0, byteCount: count), at: 0)
        indirect.pages.copyIn(at: place * SharedPages.pageSize, count: count, from: page, at: 0)
    }

    private mutating func put(_ load: BlockWorkload, _ blocks: UInt64, _ now: UInt64) {
        while let place = free.popLast() {
            let slot = slots.slot(at: place * 128, byteCount: 128)
            let block = unsafe bench_next_block(&position, blocks, load.isRandom)
            slot.set64(block &* UInt64(load.bytes / 512), at: BlockLoad.sectorOffset)
            front.put(request: slot, count: abi.requestSize)
            began[place] = now
        }
    }

    /// Sleeps until there are answers; 0 if none are expected.
    private mutating func waitForAnswers(_ areExpected: Bool) throws -> Int {
        var waiting = try front.poll()
        while waiting == 0, areExpected {
            waiting = try front.lastLook()
            if waiting > 0 { break }
            guard linux_is_readable(raw.events.descriptor, 5000) else {
                throw BenchFailure("no answer within 5 s")
            }
            while let port = raw.events.takePending() { raw.events.unmask(port) }
            waiting = try front.poll()
        }
        return Int(waiting)
    }

    private mutating func take() throws -> Int {
        let slot = slots.slot(at: BlockLoad.maxDepth * 128, byteCount: 128)
        front.takeNext(into: slot, count: abi.responseSize)
        guard let response = BlockResponse(decoding: slot), response.status == .okay, response.id < BlockLoad.maxDepth
        else { throw BenchFailure("a request was not answered with okay") }
        return Int(response.id)
    }
}
