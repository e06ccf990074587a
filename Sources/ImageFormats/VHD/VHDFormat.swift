// A VHD as the engine serves it: where its sectors are, and what must be written to have more of them.

/// Fixed, dynamic and differencing VHDs (VHD format specification 1.0; blktap's `include/vhd.h` for its batmap).
///
/// The allocation table is in memory as a whole (4 bytes for each 2 MiB of the disk), checked when it is opened; sector
/// bitmaps are read through the cache, eight bytes at a time, and not at all for blocks that are known to be full.
///
/// A block is added in this order: room, the data with its bits and the footer behind the new end, a flush, the block's
/// entry in the table. So a crash leaves a valid image, and at most a tail that nothing names. Sectors that are added to
/// a block later get their bits after their data: with a flush between where a parent's data was seen before, and
/// without where zeros were (the space was zeros, so that before and after each sector reads as it was or as it was
/// written).
public final class VHDFormat: ImageFormat {
    public let facts: FormatFacts
    let footer: VHDFooter
    let isDifferencing: Bool
    /// What a fixed image has none of.
    var sparse: Sparse?
    /// The copy at the end is missing or is about to be overwritten.
    var isFooterDue: Bool
    /// The file is not longer than that: what was to be written, whether or not it was.
    var fileEnd: UInt64
    /// The file is at least that long.
    var roomEnd: UInt64
    /// Plans for new blocks that have not ended; they write the footer themselves.
    var allocationCount = 0
    var isUpkeepRunning = false
    /// Upkeep that failed since something succeeded: it is not tried for ever.
    var upkeepFailures = 0
    let isWritable: Bool

    /// The blocks, and what changes are under way.
    struct Sparse {
        var map: VHDMap
        let layout: VHDLayout
        /// From this byte of the file on there was never anything: it reads as zeros.
        var zeroFrom: UInt64
        /// Blocks all of whose sectors are present.
        var full: VHDBitmap
        /// Blocks that were added here: what is absent in them is zeros in the file.
        var blank: VHDBitmap
        /// The batmap in the file, and whether it lacks what `full` has.
        var batmap: VHDBatmap?
        var isBatmapDue: Bool
    }

    /// Opens an image. It reads the headers and the table, at most 16 MiB.
    public static func open(_ source: some ImageSource, writable: Bool) throws(ImageFault) -> VHDFormat {
        let structures = try VHDStructures(source, writable ? [.writing] : [])
        let parent = try VHDFormat.parent(structures, source)
        return try VHDFormat(structures, parent, isWritable: writable)
    }

    private init(
        _ structures: VHDStructures,
        _ parent: ParentName?,
        isWritable: Bool
    ) throws(ImageFault) {
        footer = structures.footer
        isDifferencing = footer.kind == .differencing
        self.isWritable = isWritable
        fileEnd = structures.byteCount
        roomEnd = structures.byteCount
        isFooterDue = isWritable && !structures.isFooterAtEnd
        let blockSize = structures.sparse?.layout.blockSize ?? 1 << 20
        if isWritable, structures.sparse != nil, blockSize < VHDFormat.leastWritableBlock {
            throw ImageFault(.unsupported, "blocks of \(blockSize) bytes: below 64 KiB it can only be read")
        }
        sparse = try structures.sparse.map { read throws(ImageFault) in
            try Sparse(read, fileSize: structures.byteCount, isWritable: isWritable)
        }
        facts = FormatFacts(
            name: "vhd",
            byteCount: footer.currentSize,
            unitBytes: blockSize,
            discardGranularity: 4096,
            writeUnit: 512,
            parent: parent,
            compressedClusterBytes: 0
        )
    }

    /// Smaller blocks have their bitmaps so close together that one page holds two and data between them.
    private static let leastWritableBlock: UInt64 = 65536
    /// A batmap is written in one plan, whose pages are all in memory then. The largest disk's has 128 KiB.
    fileprivate static let largestWritableBatmap = 64 * MetadataCache.pageBytes

    /// The image's own identifier, which its children name: 16 bytes.
    public var identifier: [UInt8] { footer.identifier.bytes }

    // MARK: Where is it

    public func place(_ range: DiskRange, _ cache: MetadataCache) -> Placement {
        guard let sparse else { return .data(offset: range.start, count: range.count) }
        let (block, inBlock, count) = sparse.locate(range)
        guard let start = sparse.map.start(of: block) else { return absent(count) }
        let data = (start + sparse.layout.bitmapSectors) * 512 + inBlock
        if sparse.full[block] { return .data(offset: data, count: count) }
        switch sparse.run(start, inBlock, count, cache) {
        case .missing(let offset): return .metadata(offset: offset)
        case .present(let bytes): return .data(offset: data, count: bytes)
        case .absent(let bytes): return absent(bytes)
        }
    }

    private func absent(_ count: UInt64) -> Placement { isDifferencing ? .parent(count: count) : .zero(count: count) }

    public func placeWrite(_ range: DiskRange, _ cache: MetadataCache) -> WritePlacement {
        guard let sparse else { return .inPlace(offset: range.start, count: range.count) }
        let (block, inBlock, count) = sparse.locate(range)
        guard let start = sparse.map.start(of: block) else { return .change }
        let data = (start + sparse.layout.bitmapSectors) * 512 + inBlock
        if sparse.full[block] { return .inPlace(offset: data, count: count) }
        return switch sparse.run(start, inBlock, count, cache) {
        case .missing(let offset): .metadata(offset: offset)
        case .present(let bytes): .inPlace(offset: data, count: bytes)
        case .absent: .change
        }
    }

    public func flushBegan() {}
    public func flushEnded(succeeded: Bool) {}
    public var wantsFlush: Bool { false }
}

extension VHDFormat.Sparse {
    fileprivate init(
        _ read: VHDStructures.Sparse,
        fileSize: UInt64,
        isWritable: Bool
    ) throws(ImageFault) {
        let empty = VHDBitmap([UInt8](repeating: 0, count: (read.map.count + 7) / 8))
        guard !isWritable || read.batmap == nil || empty.bytes.count <= VHDFormat.largestWritableBatmap else {
            throw ImageFault(.unsupported, "its batmap of \(empty.bytes.count) bytes: it can only be read")
        }
        var full = empty
        if let batmap = read.batmap, batmap.isTrusted {
            for block in 0..<read.map.count where batmap[block] && read.map.start(of: block) != nil {
                full[block] = true
            }
        }
        self.init(
            map: read.map,
            layout: read.layout,
            zeroFrom: (fileSize + 511) / 512 * 512,
            full: full,
            blank: empty,
            batmap: read.batmap,
            isBatmapDue: isWritable && read.batmap?.isTrusted == false
        )
    }
}

extension VHDFormat.Sparse {
    /// The block of a range's first byte, the byte's place in it, and how much of the range is in it.
    func locate(_ range: DiskRange) -> (block: Int, inBlock: UInt64, count: UInt64) {
        let inBlock = range.start % layout.blockSize
        let block = Int(truncatingIfNeeded: range.start / layout.blockSize)
        return (block, inBlock, min(range.count, layout.blockSize - inBlock))
    }

    enum Run {
        case present(UInt64)
        case absent(UInt64)
        case missing(UInt64)
    }

    /// The bytes from `inBlock` on whose sectors are all present, or all absent, by the block's bitmap.
    func run(_ start: UInt64, _ inBlock: UInt64, _ count: UInt64, _ cache: MetadataCache) -> Run {
        var sector = inBlock / 512
        let end = (inBlock + count + 511) / 512
        var isPresent: Bool?
        while sector < end {
            let offset = start * 512 + sector / 64 * 8
            guard let word = cache.u64(at: offset) else {
                // What is known so far is an answer.
                if isPresent == nil { return .missing(offset) }
                break
            }
            let bits = word << (sector % 64)
            let value = isPresent ?? (bits >> 63 == 1)
            isPresent = value
            let left = 64 - sector % 64
            let same = min(UInt64((value ? ~bits : bits).leadingZeroBitCount), left)
            sector += same
            if same < left { break }
        }
        let bytes = min(min(sector, end) * 512 - inBlock, count)
        return isPresent == true ? .present(bytes) : .absent(bytes)
    }
}
