// Operations and statuses of a block ring, by the header's names.

/// What a request asks for (public/io/blkif.h, `BLKIF_OP_*`). Any byte can arrive, so this is not an enumeration.
public struct BlockOperation: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    public let rawValue: UInt8
    @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// `BLKIF_OP_READ`.
    @inlinable public static var read: BlockOperation { BlockOperation(rawValue: 0) }
    /// `BLKIF_OP_WRITE`.
    @inlinable public static var write: BlockOperation { BlockOperation(rawValue: 1) }
    /// `BLKIF_OP_WRITE_BARRIER`.
    @inlinable public static var writeBarrier: BlockOperation { BlockOperation(rawValue: 2) }
    /// `BLKIF_OP_FLUSH_DISKCACHE`.
    @inlinable public static var flushDiskCache: BlockOperation { BlockOperation(rawValue: 3) }
    /// `BLKIF_OP_RESERVED_1`: packet commands of old SLES; not implemented by anybody.
    @inlinable public static var reserved1: BlockOperation { BlockOperation(rawValue: 4) }
    /// `BLKIF_OP_DISCARD`.
    @inlinable public static var discard: BlockOperation { BlockOperation(rawValue: 5) }
    /// `BLKIF_OP_INDIRECT`.
    @inlinable public static var indirect: BlockOperation { BlockOperation(rawValue: 6) }

    public var description: String {
        switch rawValue {
        case 0: "read"
        case 1: "write"
        case 2: "write-barrier"
        case 3: "flush-diskcache"
        case 4: "reserved-1"
        case 5: "discard"
        case 6: "indirect"
        default: "operation \(rawValue)"
        }
    }
}

/// What a request is answered with (blkif.h, `BLKIF_RSP_*`).
public enum BlockStatus: Int16, Sendable {
    case okay = 0
    case error = -1
    /// `BLKIF_RSP_EOPNOTSUPP`: the frontend stops sending this operation.
    case unsupported = -2

    /// The 16 bits on the ring.
    @inlinable public var wireValue: UInt16 {
        switch self {
        case .okay: 0
        case .error: 0xFFFF
        case .unsupported: 0xFFFE
        }
    }
}

/// Numbers of blkif.h that are the same in every ABI.
public enum BlockWire {
    /// `BLKIF_MAX_SEGMENTS_PER_REQUEST`.
    @inlinable public static var maxSegments: Int { 11 }
    /// `BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST`.
    @inlinable public static var maxIndirectPages: Int { 8 }
    /// `struct blkif_request_segment`: reference (4), first sector (1), last sector (1), padding (2).
    @inlinable public static var segmentSize: Int { 8 }
    /// Segments in one indirect page.
    @inlinable public static var segmentsPerIndirectPage: Int { 512 }
    /// Bytes of a sector on the wire, always.
    @inlinable public static var sectorSize: Int { 512 }
    /// Sectors of a page.
    @inlinable public static var sectorsPerPage: Int { 8 }
    /// `BLKIF_DISCARD_SECURE`.
    @inlinable public static var discardSecureFlag: UInt8 { 1 }
}
