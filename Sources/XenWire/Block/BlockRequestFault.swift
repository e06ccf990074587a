// What can be wrong with a block request, and the answer each wrong becomes.

/// A frontend's request that is refused. It is answered; the device continues.
public enum BlockRequestFault: Error, Hashable, Sendable, CustomStringConvertible {
    /// No operation of blkif.h, or the reserved one.
    case unknownOperation(BlockOperation)
    /// An operation that this backend did not offer.
    case notOffered(BlockOperation)
    /// A change of a read-only disk (XSA-142).
    case readOnly(BlockOperation)
    /// 0 segments where data must be, or more than the header or the negotiation allows.
    case segmentCount(Int, limit: Int)
    /// First sector behind the last, or the last beyond its page.
    case segmentBounds(index: Int, first: UInt8, last: UInt8)
    /// Beyond the end of the disk, or beyond 64 bits.
    case beyondEnd(sector: UInt64, count: UInt64, capacity: UInt64)
    /// Not on a boundary of the disk's own blocks.
    case misaligned(sector: UInt64, count: UInt64)
    /// A discard of nothing.
    case emptyDiscard
    /// An indirect request for something other than read and write.
    case indirectOperation(BlockOperation)

    /// The one place where faults become answers.
    public var status: BlockStatus {
        switch self {
        case .unknownOperation, .notOffered: .unsupported
        case .readOnly, .segmentCount, .segmentBounds, .beyondEnd, .misaligned, .emptyDiscard, .indirectOperation:
            .error
        }
    }

    public var description: String {
        switch self {
        case .unknownOperation(let operation): "unknown \(operation)"
        case .notOffered(let operation): "\(operation) was not offered"
        case .readOnly(let operation): "\(operation) on a read-only disk"
        case .segmentCount(let count, let limit): "\(count) segments, 1 … \(limit) allowed"
        case .segmentBounds(let index, let first, let last): "segment \(index) has sectors \(first) … \(last)"
        case .beyondEnd(let sector, let count, let capacity):
            "sector \(sector) + \(count) is beyond the end at \(capacity)"
        case .misaligned(let sector, let count): "sector \(sector) + \(count) is not on the disk's block boundaries"
        case .emptyDiscard: "a discard of 0 sectors"
        case .indirectOperation(let operation): "an indirect \(operation)"
        }
    }
}
