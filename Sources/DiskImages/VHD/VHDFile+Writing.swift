// Writing one image, so that a crash at any moment leaves it valid and keeps what was flushed.

package import ImageFormats
internal import SystemPackage

// A new block's bitmap and data, and the footer behind the new end, are durable before its place is in the table; data in
// a block that has a place is durable before its bits are. The batmap is written at the end, when all of that is.
extension VHDFile {
    /// Changes in memory before they are written.
    private static let pendingLimit = 512

    /// Writes whole sectors into this image, whatever its parents have there.
    /// - Throws: `ENOSPC` where the file system or the format has no room.
    package func write(_ bytes: [UInt8], at sector: UInt64) throws(VHDFailure) {
        let count = UInt64(bytes.count / 512)
        guard bytes.count % 512 == 0, sector <= sectorCount, count <= sectorCount - sector else {
            throw VHDFailure(path, VHDFailure.outOfRange, "sectors from \(sector) on are not all on the disk")
        }
        guard let layout else { return try put(bytes, at: sector * 512, "data") }
        var next = sector
        while next < sector + count {
            let block = Int(next / layout.sectorsPerBlock)
            let first = UInt64(block) * layout.sectorsPerBlock
            let end = min(sector + count, first + layout.sectorsPerBlock)
            let piece = Array(bytes[Int(next - sector) * 512..<Int(end - sector) * 512])
            try write(piece, layout, block, Int(next - first)..<Int(end - first))
            next = end
        }
        if bitmaps.count + unpublished.count > VHDFile.pendingLimit { try flush() }
    }

    private func write(
        _ bytes: [UInt8],
        _ layout: VHDLayout,
        _ block: Int,
        _ sectors: Range<Int>
    ) throws(VHDFailure) {
        let known = structures.sparse?.map.start(of: block)
        let start = if let known { known } else { try allocate(block) }
        try put(bytes, at: (start + layout.bitmapSectors + UInt64(sectors.lowerBound)) * 512, "data")
        if known != nil, isFull(block) { return }
        var bitmap = try bitmap(of: block)
        let before = bitmap
        bitmap.insert(sectors)
        if bitmap == before { return }
        touched.insert(block)
        if unpublished.contains(block) {
            try put(bitmap.bytes, at: start * 512, "the bitmap of block \(block)")
            lastBitmap = (block, bitmap)
        } else {
            bitmaps[block] = bitmap
        }
    }

    /// Gives a block a place, with no sector present in it.
    /// - Returns: the first sector of its bitmap.
    @discardableResult
    package func allocate(_ block: Int) throws(VHDFailure) -> UInt64 {
        guard let sparse = structures.sparse, let start = sparse.map.nextPlace() else {
            throw VHDFailure(path, .noSpace, "no block can be behind sector 2^32: a VHD has 2 TiB at most")
        }
        let (old, end) = (sparse.map.endSector, start + sparse.layout.blockSectors)
        do throws(Errno) {
            if storage.isDevice, (end + 1) * 512 > storage.byteCount { throw .noSpace }
            // Everything from the old end on: what lay there, the former footer too, is no data of this block.
            try storage.reserve(DiskRange(start: old * 512, count: (end - old) * 512))
        } catch {
            // The footer may be gone; what is behind the old end is of no use.
            try? writeFooterAtEnd()
            throw VHDFailure(path, "no room for another block", error)
        }
        structures.sparse?.map.reserve(start)
        structures.sparse?.map.publish(block, start)
        structures.sparse?.batmap?[block] = false
        unpublished.insert(block)
        lastBitmap = (block, VHDBitmap(sparse.layout))
        isFooterDue = true
        return start
    }

    package func put(_ bytes: [UInt8], at offset: UInt64, _ what: String) throws(VHDFailure) {
        do throws(Errno) { try storage.write(bytes, at: offset) } catch {
            throw VHDFailure(path, "\(what) cannot be written at byte \(offset)", error)
        }
    }

    package func synchronize() throws(VHDFailure) {
        do throws(Errno) { try storage.flush() } catch { throw VHDFailure(path, "cannot be made durable", error) }
    }

    /// Makes everything that was written durable, in the order that a crash forgives.
    package func flush() throws(VHDFailure) {
        if isFooterDue { try writeFooterAtEnd() }
        try synchronize()
        isFooterDue = false
        guard let map = structures.sparse?.map, !unpublished.isEmpty || !bitmaps.isEmpty else { return }
        for sector in Set(unpublished.map { $0 / 128 }).sorted() {
            let (offset, bytes) = map.tableSector(of: sector * 128)
            try put(bytes, at: offset, "the allocation table")
        }
        for (block, bitmap) in bitmaps.sorted(by: { $0.key < $1.key }) {
            guard let start = map.start(of: block) else { continue }
            try put(bitmap.bytes, at: start * 512, "the bitmap of block \(block)")
        }
        try synchronize()
        unpublished = []
        bitmaps = [:]
        lastBitmap = nil
    }

    /// Ends a series of writes: everything durable, and full blocks in the batmap.
    package func finish() throws(VHDFailure) {
        try flush()
        let blocks = touched
        touched = []
        guard let sparse = structures.sparse, sparse.batmap != nil, !blocks.isEmpty else { return }
        for block in blocks where try bitmap(of: block).isFull(sparse.layout) {
            structures.sparse?.batmap?[block] = true
        }
        try writeBatmap()
        try synchronize()
    }

    // MARK: Structures

    private func writeFooterAtEnd() throws(VHDFailure) {
        let length = UInt64(VHDFooter.byteCount)
        let offset = storage.isDevice ? storage.byteCount - length : structures.dataEnd
        try put(footer.bytes, at: offset, "the footer")
        do throws(Errno) { try storage.truncate(to: offset + length) } catch {
            throw VHDFailure(path, "cannot be cut behind its footer", error)
        }
    }

    /// Both copies, one after the other: at any time one of them is whole.
    package func writeFooter() throws(VHDFailure) {
        try writeFooterAtEnd()
        try synchronize()
        guard footer.kind.isSparse else { return }
        try writeFooterCopy()
    }

    package func writeFooterCopy() throws(VHDFailure) {
        try put(footer.bytes, at: 0, "the footer's copy")
        try synchronize()
    }

    package func writeHeader() throws(VHDFailure) {
        guard let header else { return }
        try put(header.bytes, at: footer.dataOffset, "the header")
        try synchronize()
    }

    /// The map and its sum for the disk's present size.
    package func writeBatmap() throws(VHDFailure) {
        guard var batmap = structures.sparse?.batmap, let layout else { return }
        batmap.seal(footer.currentSize)
        batmap.isTrusted = true
        structures.sparse?.batmap = batmap
        try put(batmap.map, at: batmap.mapOffset, "the batmap")
        try put(batmap.header, at: layout.tableOffset + layout.tableByteCount, "the batmap's header")
    }
}

// What only tools do.
extension VHDFile {
    /// Sets the toolstack's mark.
    package func setMarker(_ value: UInt8) throws(VHDFailure) {
        guard structures.sparse?.batmap != nil else {
            throw VHDFailure(path, .notSupported, "has no batmap, and so no marker")
        }
        structures.sparse?.batmap?.marker = value
        try writeBatmap()
        try synchronize()
    }

    /// Writes the footer where the file, a volume that was made smaller or larger, ends or will end.
    package func moveFooter(to byteCount: UInt64) throws(VHDFailure) {
        guard byteCount >= usedByteCount, byteCount % 512 == 0 else {
            throw VHDFailure(
                path,
                .invalidArgument,
                "\(usedByteCount) bytes are in use, and \(byteCount) were asked for"
            )
        }
        try put(footer.bytes, at: byteCount - UInt64(VHDFooter.byteCount), "the footer")
        try synchronize()
    }

    /// The path in a locator; nil if there is none that can be read.
    package func path(of locator: VHDLocator) -> String? {
        guard let range = try? locator.textRange(within: storage.byteCount),
            let text = try? storage.read(at: range.lowerBound, count: range.count)
        else { return nil }
        return locator.paths(of: text).first
    }
}
