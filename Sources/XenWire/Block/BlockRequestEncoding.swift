// Requests as a frontend writes them: the other direction, for our own frontends and tests.

extension BlockABI {
    /// Zeroes a request slot, so that nothing of an earlier one remains.
    @inlinable
    func clear(_ bytes: some WritableWireBytes) {
        var offset = 0
        while offset < requestSize {
            bytes.set32(0, at: offset)
            offset &+= 4
        }
    }

    /// Writes a read, write, barrier or flush.
    /// - Parameter segments: at most 11; more is a bug of the caller. Bounds are not looked at.
    public func encode(
        _ operation: BlockOperation,
        id: UInt64,
        sector: UInt64,
        segments: [BlockSegment],
        handle: UInt16 = 0,
        into bytes: some WritableWireBytes
    ) {
        precondition(segments.count <= BlockWire.maxSegments)
        clear(bytes)
        bytes.set8(operation.rawValue, at: 0)
        bytes.set8(UInt8(truncatingIfNeeded: segments.count), at: 1)
        bytes.set16(handle, at: 2)
        bytes.set64(id, at: idOffset)
        bytes.set64(sector, at: sectorOffset)
        BlockABI.encode(segments, into: bytes, at: segmentsOffset)
    }

    /// Writes a discard.
    public func encodeDiscard(
        id: UInt64,
        sector: UInt64,
        sectorCount: UInt64,
        isSecure: Bool = false,
        into bytes: some WritableWireBytes
    ) {
        clear(bytes)
        bytes.set8(BlockOperation.discard.rawValue, at: 0)
        bytes.set8(isSecure ? BlockWire.discardSecureFlag : 0, at: 1)
        bytes.set64(id, at: idOffset)
        bytes.set64(sector, at: sectorOffset)
        bytes.set64(sectorCount, at: discardCountOffset)
    }

    /// Writes an indirect request.
    /// - Parameter pages: grants of the pages that hold the segments, at most 8.
    public func encodeIndirect(
        _ operation: BlockOperation,
        id: UInt64,
        sector: UInt64,
        segmentCount: UInt16,
        pages: [GrantReference],
        handle: UInt16 = 0,
        into bytes: some WritableWireBytes
    ) {
        precondition(pages.count <= BlockWire.maxIndirectPages)
        clear(bytes)
        bytes.set8(BlockOperation.indirect.rawValue, at: 0)
        bytes.set8(operation.rawValue, at: 1)
        bytes.set16(segmentCount, at: 2)
        bytes.set64(id, at: idOffset)
        bytes.set64(sector, at: sectorOffset)
        bytes.set16(handle, at: indirectHandleOffset)
        for (index, page) in pages.enumerated() {
            bytes.set32(page.rawValue, at: indirectGrantsOffset + index * 4)
        }
    }

    /// Writes consecutive segments, as in a request and in an indirect page.
    public static func encode(_ segments: [BlockSegment], into bytes: some WritableWireBytes, at offset: Int) {
        for (index, segment) in segments.enumerated() {
            let place = offset + index * BlockWire.segmentSize
            bytes.set32(segment.reference.rawValue, at: place)
            bytes.set8(segment.firstSector, at: place + 4)
            bytes.set8(segment.lastSector, at: place + 5)
            bytes.set16(0, at: place + 6)
        }
    }
}
