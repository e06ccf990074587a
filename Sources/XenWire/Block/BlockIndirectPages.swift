// The first look at an indirect request: how many pages of segments must be fetched before it can be validated.

/// What an indirect request promises, checked: fetch `count` pages of segments, then validate a `BlockRequest`.
public struct BlockIndirectPages: Hashable, Sendable {
    /// `read` or `write`.
    public let operation: BlockOperation
    /// 1 … the negotiated maximum.
    public let segmentCount: Int

    /// - Throws: `notOffered`, `indirectOperation`, `readOnly`, `segmentCount`.
    @inlinable
    public init<Bytes: WireBytes>(
        validating raw: RawBlockRequest<Bytes>,
        for limits: BlockLimits
    ) throws(BlockRequestFault) {
        guard limits.maxIndirectSegments > 0 else { throw .notOffered(.indirect) }
        let operation = raw.indirectOperation
        guard operation == .read || operation == .write else { throw .indirectOperation(operation) }
        guard operation == .read || !limits.isReadOnly else { throw .readOnly(operation) }
        let segments = raw.indirectSegmentCount
        guard segments > 0, segments <= limits.maxIndirectSegments else {
            throw .segmentCount(segments, limit: limits.maxIndirectSegments)
        }
        self.operation = operation
        segmentCount = segments
    }

    /// Pages that hold the segments, 1 … 8; their grants are `indirectGrant(0 ..< count)` of the raw request.
    @inlinable public var count: Int { (segmentCount &+ 511) / BlockWire.segmentsPerIndirectPage }

    /// Bytes of segments in page `index`; no more need to be fetched.
    @inlinable
    public func byteCount(ofPage index: Int) -> Int {
        let before = index &* BlockWire.segmentsPerIndirectPage
        let left = segmentCount &- before
        return min(left, BlockWire.segmentsPerIndirectPage) &* BlockWire.segmentSize
    }
}
