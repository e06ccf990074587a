// A block request that cannot be wrong: what the rest of the backend works with.

/// A validated request. Small, and without the data's grants: those stay in the bytes it was validated from (the
/// journal slot, or the private copy of the indirect pages) and are read with `segment(_:in:)`.
public struct BlockRequest: Hashable, Sendable {
    public enum Kind: UInt8, Sendable {
        case read
        case write
        /// Everything before it is done and on stable storage before it starts, nothing after it starts before it is
        /// done and on stable storage. May carry no data: blkfront sends its flushes so where barriers are offered.
        case writeBarrier
        /// What was written before becomes stable. If it carries data, that is written afterwards (as QEMU's
        /// presync and Linux's REQ_PREFLUSH).
        case flush
        case discard
        case secureDiscard
    }

    public let kind: Kind
    /// What the response names.
    public let operation: BlockOperation
    /// Grants of data: 0 for discards and empty flushes, else 1 … the negotiated maximum.
    public let segmentCount: UInt16
    @usableFromInline let segmentsOffset: UInt16
    /// Echoed in the response.
    public let id: UInt64
    /// First sector on the disk, of 512 bytes. 0 if there is nothing to transfer or discard.
    public let sector: UInt64
    /// Sectors of 512 bytes to transfer or discard; `sector + sectorCount` is at most the capacity.
    public let sectorCount: UInt64

    @usableFromInline
    init(
        kind: Kind,
        operation: BlockOperation,
        segmentCount: UInt16,
        segmentsOffset: UInt16,
        id: UInt64,
        sector: UInt64,
        sectorCount: UInt64
    ) {
        self.kind = kind
        self.operation = operation
        self.segmentCount = segmentCount
        self.segmentsOffset = segmentsOffset
        self.id = id
        self.sector = sector
        self.sectorCount = sectorCount
    }

    /// First byte on the disk.
    @inlinable public var byteOffset: UInt64 { sector &* 512 }
    /// Bytes to transfer or discard.
    @inlinable public var byteCount: UInt64 { sectorCount &* 512 }
    /// Whether it changes the disk.
    @inlinable public var writes: Bool {
        switch kind {
        case .read: false
        case .flush, .writeBarrier: segmentCount != 0
        case .write, .discard, .secureDiscard: true
        }
    }

    /// Segment `index` (below `segmentCount`, ours): its bounds are right, its grant need not be.
    /// - Parameter bytes: what the request was validated from: the slot, or the indirect pages.
    @inlinable
    public func segment(_ index: Int, in bytes: some WireBytes) -> BlockSegment {
        precondition(UInt(bitPattern: index) < UInt(segmentCount))
        return BlockSegment(word: bytes.u64(Int(segmentsOffset) &+ index &* BlockWire.segmentSize))
    }
}

extension BlockRequest {
    /// Validates any request but an indirect one.
    @inlinable
    public init<Bytes: WireBytes>(
        validating raw: RawBlockRequest<Bytes>,
        for limits: BlockLimits
    ) throws(BlockRequestFault) {
        let operation = raw.operation
        switch operation.rawValue {
        case 0:
            self = try BlockRequest.transfer(raw, .read, mayBeEmpty: false, for: limits)
        case 1:
            guard !limits.isReadOnly else { throw .readOnly(operation) }
            self = try BlockRequest.transfer(raw, .write, mayBeEmpty: false, for: limits)
        case 2:
            guard limits.features.contains(.barrier) else { throw .notOffered(operation) }
            self = try BlockRequest.transfer(raw, .writeBarrier, mayBeEmpty: true, for: limits)
        case 3:
            guard limits.features.contains(.flush) else { throw .notOffered(operation) }
            self = try BlockRequest.transfer(raw, .flush, mayBeEmpty: true, for: limits)
        case 5:
            self = try BlockRequest.discard(raw, for: limits)
        case 6:
            throw .notOffered(operation)
        default:
            throw .unknownOperation(operation)
        }
    }

    /// Validates an indirect request with its segments.
    /// - Parameters:
    ///   - pages: what `raw` was checked into before.
    ///   - segments: a private copy of the indirect pages, consecutively.
    @inlinable
    public init<Bytes: WireBytes>(
        validating raw: RawBlockRequest<Bytes>,
        _ pages: BlockIndirectPages,
        segments: some WireBytes,
        for limits: BlockLimits
    ) throws(BlockRequestFault) {
        let count = pages.segmentCount
        precondition(segments.byteCount >= count &* BlockWire.segmentSize)
        let sectors = try BlockRequest.sectors(of: count, at: 0, in: segments)
        try BlockRequest.check(sector: raw.sector, count: sectors, for: limits)
        self.init(
            kind: pages.operation == .read ? .read : .write,
            operation: pages.operation,
            segmentCount: UInt16(truncatingIfNeeded: count),
            segmentsOffset: 0,
            id: raw.id,
            sector: raw.sector,
            sectorCount: sectors
        )
    }

    @inlinable
    static func transfer<Bytes: WireBytes>(
        _ raw: RawBlockRequest<Bytes>,
        _ kind: Kind,
        mayBeEmpty: Bool,
        for limits: BlockLimits
    ) throws(BlockRequestFault) -> BlockRequest {
        let count = raw.segmentCount
        guard count <= BlockWire.maxSegments, count > 0 || mayBeEmpty else {
            throw .segmentCount(count, limit: BlockWire.maxSegments)
        }
        let offset = raw.abi.segmentsOffset
        let sectors = try sectors(of: count, at: offset, in: raw.bytes)
        if count > 0 {
            guard !limits.isReadOnly || kind == .read else { throw .readOnly(raw.operation) }
            try check(sector: raw.sector, count: sectors, for: limits)
        }
        return BlockRequest(
            kind: kind,
            operation: raw.operation,
            segmentCount: UInt16(truncatingIfNeeded: count),
            segmentsOffset: UInt16(truncatingIfNeeded: offset),
            id: raw.id,
            sector: count > 0 ? raw.sector : 0,
            sectorCount: sectors
        )
    }

    @inlinable
    static func discard<Bytes: WireBytes>(
        _ raw: RawBlockRequest<Bytes>,
        for limits: BlockLimits
    ) throws(BlockRequestFault) -> BlockRequest {
        guard limits.features.contains(.discard) else { throw .notOffered(.discard) }
        guard !limits.isReadOnly else { throw .readOnly(.discard) }
        guard raw.discardSectorCount != 0 else { throw .emptyDiscard }
        try check(sector: raw.sector, count: raw.discardSectorCount, for: limits)
        // "ignored if discard-secure=0", says the header of the flag.
        let isSecure =
            limits.features.contains(.secureDiscard) && raw.discardFlags & BlockWire.discardSecureFlag != 0
        return BlockRequest(
            kind: isSecure ? .secureDiscard : .discard,
            operation: .discard,
            segmentCount: 0,
            segmentsOffset: 0,
            id: raw.id,
            sector: raw.sector,
            sectorCount: raw.discardSectorCount
        )
    }

    /// Checks `count` segments and adds up their sectors: at most 8 × 4096, so nothing overflows.
    ///
    /// One pass without branches for what nearly all requests are, and a second for the index of the first wrong one.
    @inlinable
    static func sectors(
        of count: Int,
        at offset: Int,
        in bytes: some WireBytes
    ) throws(BlockRequestFault) -> UInt64 {
        var total: UInt64 = 0
        var wrong: UInt64 = 0
        bytes.forEachU64(offset, count: count) { word in
            let first = (word &>> 32) & 0xFF
            let last = (word &>> 40) & 0xFF
            // The top bit appears if last < first or 7 < last.
            wrong |= (last &- first) | (7 &- last)
            total &+= last &- first &+ 1
        }
        guard wrong &>> 63 == 0 else { throw firstWrong(of: count, at: offset, in: bytes) }
        return total
    }

    @inlinable
    static func firstWrong(of count: Int, at offset: Int, in bytes: some WireBytes) -> BlockRequestFault {
        var index = 0
        while index < count {
            let segment = BlockSegment(word: bytes.u64(offset &+ index &* BlockWire.segmentSize))
            if segment.firstSector > segment.lastSector || segment.lastSector > 7 {
                return .segmentBounds(index: index, first: segment.firstSector, last: segment.lastSector)
            }
            index &+= 1
        }
        return .segmentCount(count, limit: count)  // not reached: one of them was wrong
    }

    @inlinable
    static func check(sector: UInt64, count: UInt64, for limits: BlockLimits) throws(BlockRequestFault) {
        let (end, overflow) = sector.addingReportingOverflow(count)
        guard !overflow, end <= limits.capacity else {
            throw .beyondEnd(sector: sector, count: count, capacity: limits.capacity)
        }
        guard (sector | count) & limits.blockMask == 0 else { throw .misaligned(sector: sector, count: count) }
    }
}

extension BlockRequest {
    /// An empty flush as a placeholder: the initial value in tables of requests.
    public static let unused = BlockRequest(
        kind: .flush,
        operation: .flushDiskCache,
        segmentCount: 0,
        segmentsOffset: 0,
        id: 0,
        sector: 0,
        sectorCount: 0
    )
}
