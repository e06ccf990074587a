// The rules of a qcow2 image, counted over the whole file: what QEMU's check finds, in bounded memory.

internal import SystemPackage

extension QCOW2Format {
    /// Clusters of the largest file that is checked: 4 bytes of memory for each.
    public static let checkLimit: UInt64 = 1 << 27

    /// Counts all references and compares them with the refcounts.
    /// - Throws: the image cannot be read at all, or its file is too large to be checked here.
    public static func check(_ source: some ImageSource) throws(ImageFault) -> ImageCheckReport {
        let header = try QCOW2Header(reading: source)
        var check = try QCOW2Check(header, source)
        try check.run()
        return check.report
    }

    /// Mends what can be mended: refcounts, copied flags, and then the dirty and corrupt bits.
    /// - Returns: the report of a check afterwards.
    public static func repair(_ target: some ImageTarget) throws(ImageFault) -> ImageCheckReport {
        let header = try QCOW2Header(reading: target)
        var check = try QCOW2Check(header, target)
        try check.run()
        try check.mend(target)
        return try QCOW2Format.check(target)
    }
}

/// One run of the check.
struct QCOW2Check<Source: ImageSource> {
    let header: QCOW2Header
    let source: Source
    let counts: QCOW2RefcountLayout
    let end: UInt64
    var report = ImageCheckReport()
    /// References that were found, by cluster.
    var references: [UInt32]
    /// What the refcount blocks say, by cluster.
    var recorded: [UInt64]
    /// The refcount blocks' places; 0 for none.
    var blocks: [UInt64] = []
    /// Tables of the active L1: their places in the file, by index.
    var activeTables: [UInt64] = []
    /// Words whose copied flag is wrong: place, and what it should be.
    var flags: [(place: UInt64, word: UInt64)] = []
    /// L2 tables and how often L1 tables name them.
    var tables: [UInt64: UInt32] = [:]

    init(_ header: QCOW2Header, _ source: Source) throws(ImageFault) {
        self.header = header
        self.source = source
        counts = QCOW2RefcountLayout(order: UInt64(header.refcountOrder), clusterBits: UInt64(header.clusterBits))
        end = header.roundedUp(source.byteCount)
        let clusters = end >> UInt64(header.clusterBits)
        guard clusters <= QCOW2Format.checkLimit else {
            throw ImageFault(.limit, "its file has \(clusters) clusters, more than can be checked; use qemu-img check")
        }
        references = Array(repeating: 0, count: Int(clusters))
        recorded = Array(repeating: 0, count: Int(clusters))
    }

    private var clusterBytes: Int { Int(header.clusterBytes) }

    mutating func run() throws(ImageFault) {
        refer(0, header.clusterBytes, "the header")
        refer(header.l1Offset, UInt64(header.l1Entries) &* 8, "the L1 table")
        refer(
            header.refcountTableOffset,
            UInt64(header.refcountTableClusters) &* header.clusterBytes,
            "the refcount table"
        )
        try readRefcounts()
        try countBitmaps()
        activeTables = try countL1(header.l1Offset, header.l1Entries, "the L1 table", isActive: true)
        try countSnapshots()
        let active = Set(activeTables)
        for (table, times) in tables.sorted(by: { $0.key < $1.key }) {
            try countL2(table, times: times, isActive: active.contains(table))
        }
        report.totalUnits =
            header.byteCount / header.clusterBytes &+ (header.byteCount % header.clusterBytes == 0 ? 0 : 1)
        compare()
        try checkCopiedOfL1()
        if header.isCorrupt { report.add(.corruption, "the image is marked as corrupt") }
    }

    private func read(_ offset: UInt64, _ count: Int) throws(ImageFault) -> [UInt8] {
        do { return try source.read(at: offset, count: count) } catch {
            throw ImageFault(.storage(error), "cannot be read at byte \(offset): \(error)")
        }
    }

    /// Counts a reference to every cluster of a range.
    private mutating func refer(_ offset: UInt64, _ count: UInt64, times: UInt32 = 1, _ what: @autoclosure () -> String)
    {
        guard count > 0 else { return }
        guard let range = DiskRange(checking: offset, count: count), range.end <= end else {
            report.add(.corruption, "\(what()) lies outside the file, at \(offset)")
            return
        }
        let bits = UInt64(header.clusterBits)
        for cluster in range.start >> bits...(range.end &- 1) >> bits {
            let index = Int(cluster)
            references[index] =
                references[index].addingReportingOverflow(times).overflow ? .max : references[index] &+ times
        }
    }

    private mutating func readRefcounts() throws(ImageFault) {
        let bytes = Int(header.refcountTableClusters) << Int(header.clusterBits)
        let table = try read(header.refcountTableOffset, bytes)
        let needed = (UInt64(references.count) &+ (1 << counts.blockBits) &- 1) >> counts.blockBits
        for index in 0..<bytes / 8 {
            let offset: UInt64 = table.bigEndian(at: index * 8) ?? 0
            if UInt64(index) < needed { blocks.append(0) }
            if offset == 0 { continue }
            guard offset & (header.clusterBytes &- 1) == 0, offset >= header.clusterBytes,
                offset &+ header.clusterBytes <= end
            else {
                report.add(.corruption, "refcount block \(index) cannot be at \(offset)")
                continue
            }
            refer(offset, header.clusterBytes, "refcount block \(index)")
            if UInt64(index) < needed { blocks[index] = offset }
        }
        for (index, offset) in blocks.enumerated() where offset != 0 {
            let block = try read(offset, clusterBytes)
            let first = UInt64(index) << counts.blockBits
            for cluster in first..<min(UInt64(references.count), first &+ 1 << counts.blockBits) {
                recorded[Int(cluster)] = counts.value(of: cluster, in: block)
            }
        }
        for (index, offset) in blocks.enumerated() where offset != 0 {
            let own = recorded[Int(offset >> UInt64(header.clusterBits))]
            if own != 1 { report.add(.corruption, "refcount block \(index) is itself counted \(own) times") }
        }
    }

    /// - Returns: the tables that it names.
    private mutating func countL1(_ offset: UInt64, _ entries: UInt32, _ what: String, isActive: Bool)
        throws(ImageFault) -> [UInt64]
    {
        var found: [UInt64] = []
        let bytes = try read(offset, Int(entries) * 8)
        for index in 0..<Int(entries) {
            let word: UInt64 = bytes.bigEndian(at: index * 8) ?? 0
            let table = word & QCOW2Entry.offsetMask
            if isActive { found.append(0) }
            if word == 0 { continue }
            guard word & 0x7F00_0000_0000_01FF == 0, table & (header.clusterBytes &- 1) == 0,
                table >= header.clusterBytes,
                table &+ header.clusterBytes <= end
            else {
                report.add(.corruption, "entry \(index) of \(what) is wrong (0x\(String(word, radix: 16)))")
                continue
            }
            refer(table, header.clusterBytes, "an L2 table")
            tables[table, default: 0] &+= 1
            if isActive { found[index] = table }
        }
        return found
    }

    private mutating func countSnapshots() throws(ImageFault) {
        guard header.snapshotCount > 0 else { return }
        var position = header.snapshotsOffset
        for number in 0..<header.snapshotCount {
            let head = try read(position, 40)
            let l1: UInt64 = head.bigEndian(at: 0) ?? 0
            let entries: UInt32 = head.bigEndian(at: 8) ?? 0
            let id: UInt16 = head.bigEndian(at: 12) ?? 0
            let name: UInt16 = head.bigEndian(at: 14) ?? 0
            let extra: UInt32 = head.bigEndian(at: 36) ?? 0
            guard extra <= 1024, UInt64(entries) &* 8 <= QCOW2Header.maximumL1Bytes,
                l1 & (header.clusterBytes &- 1) == 0,
                DiskRange(checking: l1, count: UInt64(entries) &* 8).map({ $0.end <= end }) == true,
                position &- header.snapshotsOffset <= 64 << 20
            else {
                report.add(.corruption, "snapshot \(number) is wrong")
                return
            }
            refer(l1, UInt64(entries) &* 8, "the L1 table of snapshot \(number)")
            _ = try countL1(l1, entries, "snapshot \(number)'s L1 table", isActive: false)
            position &+= (40 &+ UInt64(extra) &+ UInt64(id) &+ UInt64(name) &+ 7) & ~7
        }
        refer(header.snapshotsOffset, position &- header.snapshotsOffset, "the snapshot table")
    }

    private mutating func countBitmaps() throws(ImageFault) {
        guard let bitmaps = header.bitmaps else { return }
        refer(bitmaps.directoryOffset, bitmaps.directoryBytes, "the bitmap directory")
        guard bitmaps.directoryOffset &+ bitmaps.directoryBytes <= end else { return }
        let directory = try read(bitmaps.directoryOffset, Int(bitmaps.directoryBytes))
        var position = 0
        for number in 0..<bitmaps.count {
            guard let table: UInt64 = directory.bigEndian(at: position),
                let entries: UInt32 = directory.bigEndian(at: position + 8),
                let name: UInt16 = directory.bigEndian(at: position + 18),
                let extra: UInt32 = directory.bigEndian(at: position + 20),
                table & (header.clusterBytes &- 1) == 0, UInt64(entries) &* 8 <= QCOW2Header.maximumL1Bytes,
                DiskRange(checking: table, count: UInt64(entries) &* 8).map({ $0.end <= end }) == true, extra <= 1 << 20
            else {
                report.add(.corruption, "bitmap \(number) is wrong")
                return
            }
            refer(table, UInt64(entries) &* 8, "the table of bitmap \(number)")
            let words = try read(table, Int(entries) * 8)
            for index in 0..<Int(entries) {
                let word: UInt64 = words.bigEndian(at: index * 8) ?? 0
                let offset = word & QCOW2Entry.offsetMask
                if offset != 0 { refer(offset, header.clusterBytes, "bitmap \(number)") }
            }
            position += (24 + Int(extra) + Int(name) + 7) & ~7
        }
    }

    /// Counts what an L2 table names, once for every L1 entry that names the table; each table is read once.
    private mutating func countL2(_ table: UInt64, times: UInt32, isActive: Bool) throws(ImageFault) {
        let bytes = try read(table, clusterBytes)
        let width = 1 << Int(header.entryBits)
        for index in 0..<clusterBytes / width {
            let first: UInt64 = bytes.bigEndian(at: index * width) ?? 0
            let second: UInt64 = width == 16 ? bytes.bigEndian(at: index * width + 8) ?? 0 : 0
            if first == 0, second == 0 { continue }
            guard let entry = QCOW2Entry(first, second, header) else {
                report.add(
                    .corruption,
                    "entry \(index) of the L2 table at \(table) is wrong (0x\(String(first, radix: 16)))"
                )
                continue
            }
            if let compressed = entry.compressed {
                // The last sector may stick out of the file.
                let count = min(UInt64(compressed.byteCount), end > compressed.offset ? end &- compressed.offset : 0)
                refer(compressed.offset, max(count, 1), times: times, "a compressed cluster")
                if isActive { report.allocatedUnits &+= 1 }
            } else if entry.host != 0 {
                refer(entry.host, header.clusterBytes, times: times, "a cluster")
                if isActive, entry.allocated != 0 { report.allocatedUnits &+= 1 }
                if isActive { checkCopied(entry.host, first, at: table &+ UInt64(index * width), "a cluster") }
            }
        }
    }

    /// In active tables the flag says that the refcount is exactly 1.
    private mutating func checkCopied(_ offset: UInt64, _ word: UInt64, at place: UInt64, _ what: String) {
        let index = Int(offset >> UInt64(header.clusterBits))
        guard index < recorded.count else { return }
        if (word & QCOW2Entry.copied != 0) != (recorded[index] == 1) {
            report.add(
                .corruption,
                "the copied flag of \(what) at \(offset) does not agree with its refcount \(recorded[index])"
            )
            flags.append((place, word))
        }
    }

    private mutating func checkCopiedOfL1() throws(ImageFault) {
        let bytes = try read(header.l1Offset, Int(header.l1Entries) * 8)
        for (index, table) in activeTables.enumerated() where table != 0 {
            checkCopied(
                table,
                bytes.bigEndian(at: index * 8) ?? 0,
                at: header.l1Offset &+ UInt64(index) &* 8,
                "an L2 table"
            )
        }
    }

    private mutating func compare() {
        for index in references.indices where UInt64(references[index]) != recorded[index] {
            let (found, said) = (references[index], recorded[index])
            if said > UInt64(found) {
                report.add(.leak, "cluster \(index) is used \(found) times and counted \(said) times")
            } else {
                report.add(.corruption, "cluster \(index) is used \(found) times and counted only \(said) times")
            }
        }
    }
}

// Repair.
extension QCOW2Check where Source: ImageTarget {
    /// Refcounts first, then the flags that follow from them, and the header's bits last, each durable before the next.
    func mend(_ target: Source) throws(ImageFault) {
        do {
            try mendCounts(target)
            try target.flush()
            for (place, word) in flags {
                let index = Int((word & QCOW2Entry.offsetMask) >> UInt64(header.clusterBits))
                let isOne = references[index] == 1
                var bytes = [UInt8](repeating: 0, count: 8)
                bytes.putBigEndian(isOne ? word | QCOW2Entry.copied : word & ~QCOW2Entry.copied, at: 0)
                try target.write(bytes, at: place)
            }
            try target.flush()
            guard header.version == 3 else { return }
            var bytes = [UInt8](repeating: 0, count: 8)
            bytes.putBigEndian(
                header.incompatible & ~(QCOW2Header.Incompatible.dirty | QCOW2Header.Incompatible.corrupt),
                at: 0
            )
            try target.write(bytes, at: QCOW2Header.Field.incompatible)
            try target.flush()
        } catch { throw ImageFault(.storage(error), "cannot be repaired: \(error)") }
    }

    private func mendCounts(_ target: Source) throws(Errno) {
        for (index, offset) in blocks.enumerated() where offset != 0 {
            let first = index << Int(counts.blockBits)
            let last = min(references.count, first + 1 << Int(counts.blockBits))
            guard first < last, (first..<last).contains(where: { UInt64(references[$0]) != recorded[$0] }) else {
                continue
            }
            var block = try target.read(at: offset, count: Int(header.clusterBytes))
            for cluster in first..<last {
                counts.set(min(UInt64(references[cluster]), counts.maximum), of: UInt64(cluster), in: &block)
            }
            try target.write(block, at: offset)
        }
    }
}
