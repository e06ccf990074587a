// Where the blocks of a sparse VHD are: the arithmetic of its layout, and its allocation table in memory.

/// Sizes that follow from the header. All are in sectors of 512 bytes unless they say otherwise.
package struct VHDLayout: Hashable, Sendable {
    /// Data sectors of a block.
    package let sectorsPerBlock: UInt64
    /// Sectors of the bitmap in front of a block's data.
    package let bitmapSectors: UInt64
    package let tableOffset: UInt64
    package let entryCount: UInt32

    package init(_ header: VHDHeader) {
        sectorsPerBlock = UInt64(header.blockSize) / 512
        bitmapSectors = max(1, (sectorsPerBlock / 8 + 511) / 512)
        tableOffset = header.tableOffset
        entryCount = header.entryCount
    }

    package var blockSectors: UInt64 { bitmapSectors + sectorsPerBlock }
    package var blockSize: UInt64 { sectorsPerBlock * 512 }
    package static func paddedTableByteCount(_ entries: UInt32) -> UInt64 { (UInt64(entries) * 4 + 511) / 512 * 512 }
    /// In bytes; at most a little over 2^34 after `tableOffset`, which the file's size bounds.
    package var tableByteCount: UInt64 { VHDLayout.paddedTableByteCount(entryCount) }

    /// Blocks of a disk; the last may stick out of it.
    package func blocks(ofDisk byteCount: UInt64) -> UInt64 {
        byteCount / blockSize + (byteCount % blockSize == 0 ? 0 : 1)
    }

    /// The first place from `sector` on where a block's data lies on a boundary of 4 KiB, as blktap lays it out.
    package func blockStart(from sector: UInt64) -> UInt64 { (sector + bitmapSectors + 7) / 8 * 8 - bitmapSectors }
}

/// The allocation table of one image, checked: every block is behind the headers, and no two share a sector.
package struct VHDMap: Sendable {
    package static let unused = UInt32.max
    /// Bytes of the table that are kept in memory: blocks of 2 MiB need 4 MiB for the largest disk.
    package static let tableLimit: UInt64 = 16 << 20

    package let layout: VHDLayout
    /// The first sector of each block's bitmap, or `unused`; one for each block of the disk.
    package private(set) var entries: [UInt32]
    /// Where the headers end.
    package let firstSector: UInt64
    /// The first sector behind all headers and blocks.
    package private(set) var endSector: UInt64
    /// Places that were reserved and given back.
    private var free: [UInt64] = []

    /// - Parameters:
    ///   - table: the table's bytes, at least those of all blocks.
    ///   - count: blocks of the disk.
    ///   - headerEnd: bytes up to the end of the headers.
    package init(_ layout: VHDLayout, table: [UInt8], count: Int, headerEnd: UInt64) throws(ImageFault) {
        guard count <= table.count / 4 else {
            throw ImageFault(.corrupt, "allocation table: \(table.count / 4) of \(count) entries")
        }
        self.layout = layout
        entries = (0..<count).map { index in
            table[4 * index..<4 * index + 4].reduce(0) { $0 << 8 | UInt32($1) }
        }
        firstSector = (headerEnd + 511) / 512
        endSector = firstSector
        try checkPlaces()
    }

    private mutating func checkPlaces() throws(ImageFault) {
        let used = entries.indices.filter { entries[$0] != VHDMap.unused }.sorted { entries[$0] < entries[$1] }
        var end = firstSector
        var before: Int?
        for block in used {
            let start = UInt64(entries[block])
            if start < end {
                let what = before.map { "block \($0)" } ?? "the headers"
                throw ImageFault(.corrupt, "allocation table: block \(block) at sector \(start) overlaps \(what)")
            }
            end = start + layout.blockSectors
            before = block
        }
        guard end <= 1 << 32 else { throw ImageFault(.corrupt, "allocation table: a block ends behind sector 2^32") }
        endSector = end
    }

    package var count: Int { entries.count }
    package var usedCount: Int { entries.count { $0 != VHDMap.unused } }

    /// The first sector of a block's bitmap.
    package func start(of block: Int) -> UInt64? {
        guard entries.indices.contains(block), entries[block] != VHDMap.unused else { return nil }
        return UInt64(entries[block])
    }

    /// Where the next block goes: a place that was given back, or the end. Nothing is changed yet.
    /// - Returns: the first sector of its bitmap; nil if there is no address for it any more.
    package func nextPlace() -> UInt64? {
        if let free = free.last { return free }
        let start = layout.blockStart(from: endSector)
        return start + layout.blockSectors < 1 << 32 ? start : nil
    }

    /// Takes `nextPlace`, for a block that is published later.
    package mutating func reserve(_ start: UInt64) {
        if free.last == start { free.removeLast() }
        endSector = max(endSector, start + layout.blockSectors)
    }

    /// Gives a place back that no table has named.
    package mutating func giveBack(_ start: UInt64) { free.append(start) }

    /// A block has its place, in the file's table too.
    package mutating func publish(_ block: Int, _ start: UInt64) {
        guard entries.indices.contains(block) else { return }
        entries[block] = UInt32(truncatingIfNeeded: start)
    }

    /// New blocks are not in front of this sector, which headers will need.
    package mutating func keepBlocksBehind(_ sector: UInt64) { endSector = max(endSector, sector) }

    /// What lies behind the last block is of no use.
    package mutating func shrink() {
        free = []
        endSector = firstSector
        for entry in entries where entry != VHDMap.unused {
            endSector = max(endSector, UInt64(entry) + layout.blockSectors)
        }
    }

    /// A block of the disk loses its place.
    package mutating func forget(_ block: Int) { entries[block] = VHDMap.unused }

    /// Gives the disk more or fewer blocks; those that go must be unused.
    package mutating func resize(to count: Int) {
        if count < entries.count {
            entries.removeSubrange(count...)
        } else {
            entries.append(contentsOf: repeatElement(VHDMap.unused, count: count - entries.count))
        }
    }

    /// The 512 bytes of the table that hold a block's entry, and where they belong in the file. What belongs to no block
    /// of the disk reads as unused.
    package func tableSector(of block: Int) -> (offset: UInt64, bytes: [UInt8]) {
        let first = block / 128 * 128
        var bytes: [UInt8] = []
        bytes.reserveCapacity(512)
        for index in first..<first + 128 {
            let entry = index < entries.count ? entries[index] : index < Int(layout.entryCount) ? VHDMap.unused : 0
            for shift in [24, 16, 8, 0] as [UInt32] { bytes.append(UInt8(truncatingIfNeeded: entry >> shift)) }
        }
        return (layout.tableOffset + UInt64(first) * 4, bytes)
    }
}

/// A block's bitmap: one bit for each sector, the most significant first.
package struct VHDBitmap: Hashable, Sendable {
    package var bytes: [UInt8]

    package init(_ bytes: [UInt8]) { self.bytes = bytes }
    package init(_ layout: VHDLayout) { bytes = [UInt8](repeating: 0, count: Int(layout.bitmapSectors * 512)) }

    package subscript(sector: Int) -> Bool {
        get { sector / 8 < bytes.count && bytes[sector / 8] & 0x80 >> UInt8(sector % 8) != 0 }
        set {
            guard sector / 8 < bytes.count else { return }
            let bit = UInt8(0x80) >> UInt8(sector % 8)
            if newValue { bytes[sector / 8] |= bit } else { bytes[sector / 8] &= ~bit }
        }
    }

    /// Sectors from `sector` on that are all present or all absent, up to `end`.
    package func run(from sector: Int, to end: Int) -> (count: Int, isPresent: Bool) {
        let isPresent = self[sector]
        let uniform: UInt8 = isPresent ? 0xFF : 0
        var next = sector + 1
        while next < end {
            if next % 8 == 0, next + 8 <= end, next / 8 < bytes.count, bytes[next / 8] == uniform {
                next += 8
            } else if self[next] == isPresent {
                next += 1
            } else {
                break
            }
        }
        return (next - sector, isPresent)
    }

    package mutating func insert(_ sectors: Range<Int>) { for sector in sectors { self[sector] = true } }

    package func isFull(_ layout: VHDLayout) -> Bool {
        let run = run(from: 0, to: Int(layout.sectorsPerBlock))
        return run.isPresent && run.count == Int(layout.sectorsPerBlock)
    }
}
