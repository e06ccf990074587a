// Random requests against a model of the disk: many in flight, every byte checked.

internal import Hypervisor
internal import SharedRing
internal import XenWire

/// Issues random requests on a test frontend. What overlaps a request in flight on another queue is not asked (only
/// within a ring is there an order); what overlaps on the same ring must come out in the ring's order.
struct RandomLoad {
    private struct Pending {
        let queue: Int
        let operation: BlockOperation
        let sectors: Range<Int>
        let page: Int
        let pageCount: Int
        /// What a read must find.
        let expected: [UInt8]
        let indirectPage: Int?
    }

    let frontend: TestFrontend
    /// The disk as it must be once everything issued is done.
    private(set) var model: [UInt8]
    private(set) var problems: [String] = []
    private(set) var answered = 0
    var usesIndirect = true
    var usesDiscard = true
    /// Sectors of a block.
    var blockSectors = 1
    private var generator: SeededGenerator
    private var pending: [UInt64: Pending] = [:]
    private var freePages: [Bool]

    init(_ frontend: TestFrontend, sectors: Int, seed: UInt64) {
        self.frontend = frontend
        model = [UInt8](repeating: 0, count: sectors * 512)
        generator = SeededGenerator(state: seed)
        freePages = Array(repeating: true, count: frontend.data.references.count)
    }

    var inFlight: Int { pending.count }

    /// Puts one random request, if there is room for it.
    mutating func issue() throws {
        let queue = Int.random(in: 0..<frontend.rings.count, using: &generator)
        let ring = frontend.rings[queue]
        guard ring.ring.free > 0 else { return }
        let choice = Int.random(in: 0..<100, using: &generator)
        if choice < 4 { return put(.flushDiskCache, on: queue) }
        if choice < 6 { return put(.writeBarrier, on: queue) }
        let isIndirect = usesIndirect && choice < 30
        let limit = isIndirect ? 100 : 11
        let blocks = model.count / 512 / blockSectors
        let length = min(Int.random(in: 1...(isIndirect ? 40 : 12) * 4, using: &generator), blocks / 2)
        let start = Int.random(in: 0...(blocks - length), using: &generator)
        let sectors = start * blockSectors..<(start + length) * blockSectors
        // Within a queue overlaps are welcome; across queues there is no order to check.
        if pending.values.contains(where: { $0.queue != queue && $0.sectors.overlaps(sectors) }) { return }
        if usesDiscard, choice < 36 { return discard(sectors, on: queue) }
        let isWrite = Bool.random(using: &generator)
        transfer(isWrite ? .write : .read, sectors, limit: limit, isIndirect: isIndirect, on: queue)
    }

    mutating func push() { for ring in frontend.rings { ring.push() } }

    private mutating func put(_ operation: BlockOperation, on queue: Int) {
        let id = frontend.newID()
        pending[id] = Pending(
            queue: queue,
            operation: operation,
            sectors: 0..<0,
            page: 0,
            pageCount: 0,
            expected: [],
            indirectPage: nil
        )
        let abi = frontend.abi
        frontend.rings[queue].put { abi.encode(operation, id: id, sector: 0, segments: [], into: $0) }
    }

    private mutating func discard(_ sectors: Range<Int>, on queue: Int) {
        let id = frontend.newID()
        for index in sectors.lowerBound * 512..<sectors.upperBound * 512 { model[index] = 0 }
        pending[id] = Pending(
            queue: queue,
            operation: .discard,
            sectors: sectors,
            page: 0,
            pageCount: 0,
            expected: [],
            indirectPage: nil
        )
        let abi = frontend.abi
        frontend.rings[queue].put {
            abi.encodeDiscard(
                id: id,
                sector: UInt64(sectors.lowerBound),
                sectorCount: UInt64(sectors.count),
                into: $0
            )
        }
    }

    private mutating func transfer(
        _ operation: BlockOperation,
        _ sectors: Range<Int>,
        limit: Int,
        isIndirect: Bool,
        on queue: Int
    ) {
        guard let (segments, page, pageCount) = makeSegments(sectors.count, limit: limit, spare: isIndirect) else {
            return
        }
        let bytes = sectors.lowerBound * 512..<sectors.upperBound * 512
        var expected: [UInt8] = []
        if operation == .write {
            let data = generator.bytes(bytes.count)
            scatter(data, segments, page)
            model.replaceSubrange(bytes, with: data)
        } else {
            expected = Array(model[bytes])
        }
        let id = frontend.newID()
        let indirect = isIndirect ? page + segments.count : nil
        pending[id] = Pending(
            queue: queue,
            operation: operation,
            sectors: sectors,
            page: page,
            pageCount: pageCount,
            expected: expected,
            indirectPage: indirect
        )
        segmentsByID[id] = segments
        let abi = frontend.abi
        let sector = UInt64(sectors.lowerBound)
        if let indirect {
            frontend.fillSegments(page: indirect, segments)
            let reference = frontend.data.references[indirect]
            frontend.rings[queue].put {
                abi.encodeIndirect(
                    operation,
                    id: id,
                    sector: sector,
                    segmentCount: UInt16(segments.count),
                    pages: [reference],
                    into: $0
                )
            }
        } else {
            frontend.rings[queue].put { abi.encode(operation, id: id, sector: sector, segments: segments, into: $0) }
        }
    }

    private var segmentsByID: [UInt64: [BlockSegment]] = [:]

    /// Random pieces of pages that add up to `sectors`, and free pages for them.
    private mutating func makeSegments(
        _ sectors: Int,
        limit: Int,
        spare: Bool
    ) -> (segments: [BlockSegment], page: Int, pageCount: Int)? {
        var shapes: [(UInt8, UInt8)] = []
        var left = sectors
        while left > 0 {
            // Whole pages mostly, so that few segments are enough.
            let first =
                left >= 8 && Int.random(in: 0..<4, using: &generator) > 0 ? 0 : Int.random(in: 0..<8, using: &generator)
            let last = min(7, first + left - 1)
            shapes.append((UInt8(first), UInt8(last)))
            left -= last - first + 1
        }
        guard shapes.count <= limit else { return nil }
        let count = shapes.count + (spare ? 1 : 0)
        guard let page = freeRun(count) else { return nil }
        for index in page..<page + count { freePages[index] = false }
        let segments = shapes.enumerated().map { index, shape in
            BlockSegment(reference: frontend.data.references[page + index], firstSector: shape.0, lastSector: shape.1)
        }
        return (segments, page, count)
    }

    private func freeRun(_ count: Int) -> Int? {
        var run = 0
        for index in freePages.indices {
            run = freePages[index] ? run + 1 : 0
            if run == count { return index - count + 1 }
        }
        return nil
    }

    private func scatter(_ data: [UInt8], _ segments: [BlockSegment], _ page: Int) {
        var position = 0
        for (index, segment) in segments.enumerated() {
            let piece = Array(data[position..<position + segment.byteCount])
            frontend.fill(offset: (page + index) * 4096 + segment.pageOffset, piece)
            position += segment.byteCount
        }
    }

    private func gather(_ segments: [BlockSegment], _ page: Int) -> [UInt8] {
        segments.enumerated().flatMap { index, segment in
            frontend.contents(offset: (page + index) * 4096 + segment.pageOffset, count: segment.byteCount)
        }
    }

    // MARK: answers

    /// Takes what is there and checks it.
    mutating func collect() throws {
        for (queue, ring) in frontend.rings.enumerated() {
            for response in try ring.take() {
                guard let request = pending.removeValue(forKey: response.id), request.queue == queue else {
                    problems.append("answer to nothing: \(response)")
                    continue
                }
                answered += 1
                if response.operation != request.operation || response.status != .okay {
                    problems.append("\(request.operation) at \(request.sectors): \(response)")
                }
                let segments = segmentsByID.removeValue(forKey: response.id) ?? []
                if request.operation == .read, gather(segments, request.page) != request.expected {
                    problems.append("read at \(request.sectors): wrong bytes")
                }
                for index in request.page..<request.page + request.pageCount { freePages[index] = true }
            }
        }
    }

    mutating func collect(atLeast count: Int) async throws {
        let end = ContinuousClock.now + .seconds(10)
        let goal = answered + min(count, pending.count)
        while answered < goal, ContinuousClock.now < end {
            try collect()
            try await Task.sleep(for: .microseconds(100))
        }
    }

    /// Waits until nothing is in flight.
    mutating func collectAll(within limit: Duration = .seconds(20)) async throws {
        let end = ContinuousClock.now + limit
        while !pending.isEmpty, ContinuousClock.now < end {
            try collect()
            if !pending.isEmpty { try await Task.sleep(for: .microseconds(200)) }
        }
        if !pending.isEmpty { problems.append("\(pending.count) requests were never answered") }
    }
}
