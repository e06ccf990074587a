// A block request as it came: fields at their offsets, nothing believed.

/// One grant of a request's data (blkif.h, `struct blkif_request_segment`), 512-byte sectors inside its page.
public struct BlockSegment: Hashable, Sendable {
    public let reference: GrantReference
    /// First and last sector in the page, both included.
    public let firstSector: UInt8
    public let lastSector: UInt8

    @inlinable
    public init(reference: GrantReference, firstSector: UInt8, lastSector: UInt8) {
        self.reference = reference
        self.firstSector = firstSector
        self.lastSector = lastSector
    }

    /// From the eight bytes of a segment read as one little-endian number.
    @inlinable
    init(word: UInt64) {
        self.init(
            reference: GrantReference(UInt32(truncatingIfNeeded: word)),
            firstSector: UInt8(truncatingIfNeeded: word &>> 32),
            lastSector: UInt8(truncatingIfNeeded: word &>> 40)
        )
    }

    /// Sectors of a validated segment: 1 … 8. (For an unvalidated one, some number.)
    @inlinable public var sectorCount: Int { Int(lastSector) &- Int(firstSector) &+ 1 }
    /// First byte in the page.
    @inlinable public var pageOffset: Int { Int(firstSector) &* 512 }
    /// Bytes of a validated segment: 512 … 4096.
    @inlinable public var byteCount: Int { sectorCount &* 512 }
}

/// A view of a request in private memory. Reading a field costs one load; nothing is copied or allocated.
///
/// `bytes` must be a private copy of at least `abi.requestSize` bytes.
public struct RawBlockRequest<Bytes: WireBytes> {
    @usableFromInline let bytes: Bytes
    @usableFromInline let abi: BlockABI

    @inlinable
    public init(_ bytes: Bytes, abi: BlockABI) {
        self.bytes = bytes
        self.abi = abi
    }

    @inlinable public var operation: BlockOperation { BlockOperation(rawValue: bytes.u8(0)) }
    /// Echoed in the response.
    @inlinable public var id: UInt64 { bytes.u64(abi.idOffset) }
    /// `sector_number`, in units of 512 bytes.
    @inlinable public var sector: UInt64 { bytes.u64(abi.sectorOffset) }

    /// The operation a response must name: of an indirect request the one inside it. (blkfront compares, and closes
    /// the disk if it differs; older ones `BUG()` on `BLKIF_OP_INDIRECT`.)
    @inlinable
    public var answeredOperation: BlockOperation {
        operation == .indirect ? indirectOperation : operation
    }

    // Read, write, barrier, flush.

    /// `nr_segments` as it came: 0 … 255.
    @inlinable public var segmentCount: Int { Int(bytes.u8(1)) }
    /// `handle`: the virtual device, which is not used.
    @inlinable public var handle: UInt16 { bytes.u16(operation == .indirect ? abi.indirectHandleOffset : 2) }

    /// Segment `index` (0 … 10, ours) as it came.
    @inlinable
    public func segment(_ index: Int) -> BlockSegment {
        precondition(UInt(bitPattern: index) < UInt(bitPattern: BlockWire.maxSegments))
        return BlockSegment(word: bytes.u64(abi.segmentsOffset &+ index &* BlockWire.segmentSize))
    }

    // Discard.

    /// `flag`: `BLKIF_DISCARD_SECURE` or 0.
    @inlinable public var discardFlags: UInt8 { bytes.u8(1) }
    /// `nr_sectors`.
    @inlinable public var discardSectorCount: UInt64 { bytes.u64(abi.discardCountOffset) }

    // Indirect.

    /// `indirect_op`.
    @inlinable public var indirectOperation: BlockOperation { BlockOperation(rawValue: bytes.u8(1)) }
    /// `nr_segments` of an indirect request as it came: 0 … 65535.
    @inlinable public var indirectSegmentCount: Int { Int(bytes.u16(2)) }

    /// The grant of indirect page `index` (0 … 7, ours).
    @inlinable
    public func indirectGrant(_ index: Int) -> GrantReference {
        precondition(UInt(bitPattern: index) < UInt(bitPattern: BlockWire.maxIndirectPages))
        return GrantReference(bytes.u32(abi.indirectGrantsOffset &+ index &* 4))
    }
}
