// Block requests that are wrong, and requests that are nothing but random.

import Testing
import XenWire

@Suite struct BlockHostileValues {
    static let all: BlockLimits.Features = [.flush, .barrier, .discard, .secureDiscard]
    static let disk = BlockLimits(capacity: 1000, features: all, maxIndirectSegments: 256)
    static let readOnly = BlockLimits(capacity: 1000, isReadOnly: true, features: all, maxIndirectSegments: 256)
    static let bare = BlockLimits(capacity: 1000)
    static let large = BlockLimits(capacity: 1000, features: all, logicalBlockSize: 4096)
    static let empty = BlockLimits(capacity: 0, features: all)

    private func fault(
        _ operation: BlockOperation,
        sector: UInt64 = 0,
        count: UInt8? = nil,
        segments: [(UInt8, UInt8)] = [(0, 7)],
        _ limits: BlockLimits,
        _ abi: BlockABI
    ) -> BlockRequestFault? {
        let slot = TestBytes(count: abi.requestSize)
        let segments = segments.map { BlockSegment(reference: GrantReference(1), firstSector: $0, lastSector: $1) }
        abi.encode(operation, id: 1, sector: sector, segments: segments, into: slot)
        if let count { slot.set8(count, at: 1) }
        do throws(BlockRequestFault) {
            _ = try BlockRequest(validating: RawBlockRequest(slot, abi: abi), for: limits)
            return nil
        } catch {
            return error
        }
    }

    @Test(arguments: BlockABI.allCases)
    func segmentCounts(_ abi: BlockABI) {
        for count in [0, 12, 13, 128, 255] as [UInt8] {
            for operation in [BlockOperation.read, .write] {
                #expect(
                    fault(operation, count: count, BlockHostileValues.disk, abi)
                        == .segmentCount(Int(count), limit: 11)
                )
            }
        }
        for operation in [BlockOperation.writeBarrier, .flushDiskCache] {
            #expect(fault(operation, count: 0, BlockHostileValues.disk, abi) == nil)
            #expect(
                fault(operation, count: 12, BlockHostileValues.disk, abi) == .segmentCount(12, limit: 11)
            )
        }
    }

    @Test(arguments: [(1, 0), (7, 6), (0, 8), (8, 8), (0, 255), (255, 0), (255, 255)] as [(UInt8, UInt8)])
    func segmentBounds(_ first: UInt8, _ last: UInt8) {
        for abi in BlockABI.allCases {
            #expect(
                fault(.read, segments: [(0, 7), (first, last)], BlockHostileValues.disk, abi)
                    == .segmentBounds(index: 1, first: first, last: last)
            )
        }
    }

    @Test(arguments: [993, 1000, 1001, UInt64.max, UInt64.max - 7, UInt64.max / 512, 1 << 63])
    func sectorsBeyondTheEnd(_ sector: UInt64) {
        for abi in BlockABI.allCases {
            #expect(
                fault(.read, sector: sector, BlockHostileValues.disk, abi)
                    == .beyondEnd(sector: sector, count: 8, capacity: 1000)
            )
        }
    }

    @Test func theLastSectorIsAllowed() {
        #expect(fault(.read, sector: 992, BlockHostileValues.disk, .x86_64) == nil)
        #expect(fault(.write, sector: 999, segments: [(7, 7)], BlockHostileValues.disk, .x86_64) == nil)
    }

    @Test func aDriveWithoutAMediumTransfersNothing() {
        #expect(
            fault(.read, segments: [(0, 0)], BlockHostileValues.empty, .x86_64)
                == .beyondEnd(sector: 0, count: 1, capacity: 0)
        )
        #expect(fault(.flushDiskCache, segments: [], BlockHostileValues.empty, .x86_64) == nil)
    }

    @Test(arguments: [4, 7, 8, 100, 255] as [UInt8])
    func unknownOperations(_ rawValue: UInt8) {
        let fault = fault(BlockOperation(rawValue: rawValue), BlockHostileValues.disk, .x86_64)
        #expect(fault == .unknownOperation(BlockOperation(rawValue: rawValue)))
        #expect(fault?.status == .unsupported)
    }

    @Test(arguments: [BlockOperation.writeBarrier, .flushDiskCache, .discard, .indirect])
    func operationsNobodyOffered(_ operation: BlockOperation) {
        #expect(fault(operation, BlockHostileValues.bare, .x86_64) == .notOffered(operation))
        #expect(BlockRequestFault.notOffered(operation).status == .unsupported)
    }

    @Test(arguments: [BlockOperation.write, .writeBarrier, .flushDiskCache, .discard])
    func changesOfAReadOnlyDisk(_ operation: BlockOperation) {
        #expect(fault(operation, BlockHostileValues.readOnly, .x86_64) == .readOnly(operation))
        #expect(BlockRequestFault.readOnly(operation).status == .error)
    }

    @Test func readsAndEmptyFlushesOfAReadOnlyDiskAreFine() {
        #expect(fault(.read, BlockHostileValues.readOnly, .x86_64) == nil)
        #expect(fault(.flushDiskCache, segments: [], BlockHostileValues.readOnly, .x86_64) == nil)
    }

    @Test(arguments: [(4, 0, 7), (0, 0, 6), (0, 1, 7), (1, 0, 7)] as [(UInt64, UInt8, UInt8)])
    func partsOfALargeBlock(_ sector: UInt64, _ first: UInt8, _ last: UInt8) {
        let count = UInt64(last - first + 1)
        #expect(
            fault(.write, sector: sector, segments: [(first, last)], BlockHostileValues.large, .x86_64)
                == .misaligned(sector: sector, count: count)
        )
    }

    @Test func wholeLargeBlocksInPieces() {
        #expect(fault(.write, sector: 8, segments: [(4, 7), (0, 3)], BlockHostileValues.large, .x86_64) == nil)
    }

    @Test(
        arguments: [
            (0, 0, .emptyDiscard), (1, 1000, .beyondEnd(sector: 1, count: 1000, capacity: 1000)),
            (1, .max, .beyondEnd(sector: 1, count: .max, capacity: 1000)),
            (.max, 1, .beyondEnd(sector: .max, count: 1, capacity: 1000)), (0, 1000, nil),
        ] as [(UInt64, UInt64, BlockRequestFault?)]
    )
    func discards(_ sector: UInt64, _ count: UInt64, _ expected: BlockRequestFault?) {
        for abi in BlockABI.allCases {
            let slot = TestBytes(count: abi.requestSize)
            abi.encodeDiscard(id: 1, sector: sector, sectorCount: count, into: slot)
            #expect(validated(slot, abi, BlockHostileValues.disk) == expected)
        }
    }

    @Test(arguments: [0, 257, 4096, 4097, 65535] as [UInt16])
    func indirectCounts(_ count: UInt16) {
        for abi in BlockABI.allCases {
            let slot = TestBytes(count: abi.requestSize)
            abi.encodeIndirect(.read, id: 1, sector: 0, segmentCount: count, pages: [], into: slot)
            #expect(validated(slot, abi, BlockHostileValues.disk) == .segmentCount(Int(count), limit: 256))
        }
    }

    @Test(arguments: [2, 3, 5, 6, 255] as [UInt8])
    func indirectOperations(_ operation: UInt8) {
        let slot = TestBytes(count: 112)
        let operation = BlockOperation(rawValue: operation)
        BlockABI.x86_64.encodeIndirect(operation, id: 1, sector: 0, segmentCount: 1, pages: [], into: slot)
        #expect(validated(slot, .x86_64, BlockHostileValues.disk) == .indirectOperation(operation))
    }

    @Test func anIndirectWriteToAReadOnlyDisk() {
        let slot = TestBytes(count: 112)
        BlockABI.x86_64.encodeIndirect(.write, id: 1, sector: 0, segmentCount: 1, pages: [], into: slot)
        #expect(validated(slot, .x86_64, BlockHostileValues.readOnly) == .readOnly(.write))
    }

    @Test func indirectSegmentsAreCheckedLikeOthers() {
        let slot = TestBytes(count: 112)
        BlockABI.x86_64.encodeIndirect(.read, id: 1, sector: 900, segmentCount: 256, pages: [], into: slot)
        let pages = TestBytes(count: 4096)
        for index in 0..<256 { pages.set8(7, at: index * 8 + 5) }
        #expect(
            validated(slot, .x86_64, BlockHostileValues.disk, pages)
                == .beyondEnd(sector: 900, count: 2048, capacity: 1000)
        )
        pages.set8(8, at: 255 * 8 + 5)
        #expect(
            validated(slot, .x86_64, BlockHostileValues.disk, pages) == .segmentBounds(index: 255, first: 0, last: 8)
        )
    }
}

/// Validates as the backend does, by way of the indirect pages where there are some.
private func validated(
    _ slot: TestBytes,
    _ abi: BlockABI,
    _ limits: BlockLimits,
    _ pages: TestBytes = TestBytes(count: 8 * 4096)
) -> BlockRequestFault? {
    let raw = RawBlockRequest(slot, abi: abi)
    do throws(BlockRequestFault) {
        let request: BlockRequest
        if raw.operation == .indirect {
            let indirect = try BlockIndirectPages(validating: raw, for: limits)
            #expect((1...8).contains(indirect.count))
            let bytes = (0..<indirect.count).map(indirect.byteCount(ofPage:))
            #expect(bytes.allSatisfy { (8...4096).contains($0) })
            #expect(bytes.reduce(0, +) == indirect.segmentCount * 8)
            request = try BlockRequest(validating: raw, indirect, segments: pages, for: limits)
        } else {
            request = try BlockRequest(validating: raw, for: limits)
        }
        check(request, raw.operation == .indirect ? pages : slot, limits)
        return nil
    } catch {
        return error
    }
}

/// What every validated request promises to the rest of the backend.
private func check(_ request: BlockRequest, _ bytes: TestBytes, _ limits: BlockLimits) {
    let (end, overflow) = request.sector.addingReportingOverflow(request.sectorCount)
    #expect(!overflow && end <= limits.capacity)
    #expect(request.byteOffset / 512 == request.sector && request.byteCount / 512 == request.sectorCount)
    #expect(request.byteOffset % UInt64(limits.logicalBlockSize) == 0)
    #expect(request.byteCount % UInt64(limits.logicalBlockSize) == 0)
    #expect(!(limits.isReadOnly && request.writes))
    let segments = (0..<Int(request.segmentCount)).map { request.segment($0, in: bytes) }
    #expect(segments.allSatisfy { $0.pageOffset + $0.byteCount <= 4096 && $0.byteCount >= 512 })
    switch request.kind {
    case .discard, .secureDiscard: #expect(segments.isEmpty && request.sectorCount > 0)
    case .read, .write: #expect(!segments.isEmpty)
    case .flush, .writeBarrier: break
    }
    if !segments.isEmpty { #expect(UInt64(segments.reduce(0) { $0 + $1.byteCount }) == request.byteCount) }
}

@Suite struct BlockRandomBytes {
    /// Random slots and pages, biased so that a good part gets through: none traps, and what gets through keeps its
    /// promises (checked in `validated`).
    @Test(arguments: BlockABI.allCases)
    func neverTrap(_ abi: BlockABI) {
        var generator = SeededGenerator(seed: 0x6273_6b66)
        let disks = [
            BlockHostileValues.disk, BlockHostileValues.readOnly, BlockHostileValues.bare, BlockHostileValues.large,
            BlockHostileValues.empty,
            BlockLimits(capacity: .max / 512, features: BlockHostileValues.all, maxIndirectSegments: 4096),
        ]
        let pages = TestBytes(count: 8 * 4096)
        var passed = 0
        for round in 0..<1200 {
            let slot = TestBytes((0..<abi.requestSize).map { _ in UInt8.random(in: 0...255, using: &generator) })
            if round % 4 != 0 { soften(slot, abi, pages, &generator) }
            for disk in disks where validated(slot, abi, disk, pages) == nil { passed += 1 }
        }
        #expect(passed > 300, "the test must also see requests that pass: \(passed)")
    }

    private func soften(
        _ slot: TestBytes,
        _ abi: BlockABI,
        _ pages: TestBytes,
        _ generator: inout SeededGenerator
    ) {
        slot.set8(UInt8.random(in: 0...7, using: &generator), at: 0)
        slot.set8(UInt8.random(in: 0...12, using: &generator), at: 1)
        if slot.u8(0) == 6 {
            slot.set8(UInt8.random(in: 0...2, using: &generator), at: 1)
            slot.set16(UInt16.random(in: 0...520, using: &generator), at: 2)
        }
        let start = abi.requestSize - 88
        slot.set64(UInt64.random(in: 0...1000, using: &generator), at: start - 8)
        if slot.u8(0) == 5 { slot.set64(UInt64.random(in: 0...100, using: &generator), at: start) }
        if slot.u8(0) < 4 {
            for index in 0..<11 {
                slot.set8(UInt8.random(in: 0...4, using: &generator), at: start + index * 8 + 4)
                slot.set8(UInt8.random(in: 4...7, using: &generator), at: start + index * 8 + 5)
            }
        }
        for _ in 0..<8 {
            let place = Int.random(in: 0..<4096, using: &generator) * 8
            let last = UInt8.random(in: 0...8, using: &generator)
            pages.set8(UInt8.random(in: 0...last, using: &generator), at: place + 4)
            pages.set8(last, at: place + 5)
        }
    }
}
