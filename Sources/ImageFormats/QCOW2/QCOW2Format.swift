// One qcow2 image: its header, what it has reserved, and look-ups in its tables.

/// A qcow2 image of version 2 or 3. `QCOW2Format+Changes` plans writes, `+Upkeep` claims and frees space, `+Refcounts`
/// finds it.
public final class QCOW2Format {
    let header: QCOW2Header
    public let facts: FormatFacts
    let counts: QCOW2RefcountLayout
    /// Tables whose place never changes, which no data may overlap: the header is the first cluster.
    let fixedTables: [DiskRange]
    /// The end of all that is in the file, in whole clusters; grows as space is claimed.
    var end: UInt64
    /// nil for an image that is only read.
    var space: QCOW2Space?

    /// Entries looked at for one answer, at most.
    private static let entriesPerAnswer = 4096

    init(_ header: QCOW2Header, fileBytes: UInt64, space: QCOW2Space?) {
        self.header = header
        self.space = space
        end = header.roundedUp(fileBytes)
        counts = QCOW2RefcountLayout(order: UInt64(header.refcountOrder), clusterBits: UInt64(header.clusterBits))
        let tables = [
            (header.l1Offset, UInt64(header.l1Entries) &* 8),
            (header.refcountTableOffset, UInt64(header.refcountTableClusters) << UInt64(header.clusterBits)),
            (header.snapshotsOffset, UInt64(header.snapshotCount) &* 40),
        ]
        fixedTables = tables.filter { $0.1 > 0 }.map {
            DiskRange(start: $0.0, count: $0.1).rounded(outTo: header.clusterBytes)
        }
        facts = FormatFacts(
            name: "qcow2",
            byteCount: header.byteCount,
            unitBytes: header.clusterBytes,
            discardGranularity: header.clusterBytes,
            writeUnit: 512,
            parent: header.backingName.map { ParentName(paths: [$0], format: header.backingFormat) },
            compressedClusterBytes: Int(header.clusterBytes)
        )
    }

    /// Opens an image to be read.
    public static func open(_ source: some ImageSource) throws(ImageFault) -> QCOW2Format {
        QCOW2Format(try QCOW2Header(reading: source), fileBytes: source.byteCount, space: nil)
    }

    var clusterBytes: UInt64 { header.clusterBytes }
    var clusterBits: UInt64 { UInt64(header.clusterBits) }
    var subclusterBytes: UInt64 { header.clusterBytes / UInt64(header.subclusters) }
    var allSubclusters: UInt32 { header.hasExtendedL2 ? .max : 1 }
    var hasParent: Bool { header.backingName != nil }

    // MARK: tables

    /// A value, or what keeps it from being known.
    enum Lookup<Value> {
        case value(Value)
        case missing(UInt64)
        case fault(ImageFault)
    }

    /// An entry of the L1 table: the L2 table, 0 for none, and whether it is the active one's alone.
    func l2Table(_ index: UInt64, _ cache: MetadataCache) -> Lookup<(offset: UInt64, isCopied: Bool)> {
        let place = header.l1Offset &+ index &* 8
        guard index < UInt64(header.l1Entries) else { return .fault(ImageFault(.corrupt, "its L1 table is too small")) }
        guard let word = cache.u64(at: place) else { return .missing(place) }
        let offset = word & QCOW2Entry.offsetMask
        guard word & 0x7F00_0000_0000_01FF == 0, offset == 0 || isCluster(offset) else {
            return .fault(ImageFault(.corrupt, "entry \(index) of its L1 table is wrong (\(hexadecimal(word)))"))
        }
        return .value((offset, word & QCOW2Entry.copied != 0))
    }

    func entryPlace(_ table: UInt64, _ cluster: UInt64) -> UInt64 {
        table &+ (cluster & (1 << UInt64(header.l2Bits) &- 1)) << UInt64(header.entryBits)
    }

    /// A cluster's entry in an L2 table.
    func entry(_ table: UInt64, _ cluster: UInt64, _ cache: MetadataCache) -> Lookup<QCOW2Entry> {
        let place = entryPlace(table, cluster)
        guard let first = cache.u64(at: place) else { return .missing(place) }
        var second: UInt64 = 0
        if header.hasExtendedL2 {
            guard let word = cache.u64(at: place &+ 8) else { return .missing(place &+ 8) }
            second = word
        }
        guard let entry = QCOW2Entry(first, second, header), isPossible(entry) else {
            return .fault(ImageFault(.corrupt, "the entry of cluster \(cluster) is wrong (\(hexadecimal(first)))"))
        }
        return .value(entry)
    }

    /// Whether what an entry names can be data of this file.
    private func isPossible(_ entry: QCOW2Entry) -> Bool {
        if let compressed = entry.compressed {
            // The last sector may stick out of the file.
            return compressed.offset >= clusterBytes && compressed.offset < end && compressed.byteCount > 0
                && UInt64(compressed.byteCount) <= 2 &* clusterBytes &+ 512
        }
        return entry.host == 0 || isCluster(entry.host)
    }

    /// Whether a cluster of the file may hold data or an L2 table.
    func isCluster(_ offset: UInt64) -> Bool {
        guard offset & (clusterBytes &- 1) == 0, offset >= clusterBytes, offset < end else { return false }
        for table in fixedTables where table.start <= offset && offset < table.end { return false }
        return true
    }

    func hexadecimal(_ word: UInt64) -> String { "0x" + String(word, radix: 16) }

    // MARK: reading

    public func place(_ range: DiskRange, _ cache: MetadataCache) -> Placement {
        let table: UInt64
        switch l2Table(range.start >> (clusterBits &+ UInt64(header.l2Bits)), cache) {
        case .missing(let offset): return .metadata(offset: offset)
        case .fault(let fault): return .fault(fault)
        case .value(let found): table = found.offset
        }
        let span = UInt64(1) << (clusterBits &+ UInt64(header.l2Bits))
        let inTable = min(range.count, span &- range.start & (span &- 1))
        if table == 0 { return hasParent ? .parent(count: inTable) : .zero(count: inTable) }
        var answer: Placement?
        var done: UInt64 = 0
        for _ in 0..<QCOW2Format.entriesPerAnswer where done < inTable {
            let rest = DiskRange(start: range.start &+ done, count: inTable &- done)
            switch entry(table, rest.start >> clusterBits, cache) {
            case .missing(let offset): return answer ?? .metadata(offset: offset)
            case .fault(let fault): return answer ?? .fault(fault)
            case .value(let entry):
                let next = self.place(rest, entry)
                guard let sum = answer.map({ $0.joined(next) }) ?? next else { return answer ?? next }
                answer = sum
                done = sum.count
            }
        }
        return answer ?? .zero(count: inTable)
    }

    /// Where the first bytes of a range are in the one cluster that it begins in.
    private func place(_ range: DiskRange, _ entry: QCOW2Entry) -> Placement {
        let inCluster = range.start & (clusterBytes &- 1)
        let count = min(range.count, clusterBytes &- inCluster)
        if let compressed = entry.compressed { return .compressed(compressed, skip: inCluster, count: count) }
        var subcluster = Int(truncatingIfNeeded: inCluster / subclusterBytes)
        let content = entry.content(subcluster)
        var end = inCluster
        while end < inCluster &+ count, entry.content(subcluster) == content {
            subcluster &+= 1
            end = UInt64(subcluster) &* subclusterBytes
            if subcluster == header.subclusters { break }
        }
        let found = min(end, inCluster &+ count) &- inCluster
        switch content {
        case .data: return .data(offset: entry.host &+ inCluster, count: found)
        case .zero: return .zero(count: found)
        case .parent: return hasParent ? .parent(count: found) : .zero(count: found)
        }
    }
}

extension Placement {
    /// Bytes that it speaks of.
    var count: UInt64 {
        switch self {
        case .zero(let count), .data(_, let count), .compressed(_, _, let count), .parent(let count): count
        case .metadata, .fault: 0
        }
    }

    /// This and what follows it as one; nil: they are not one.
    func joined(_ next: Placement) -> Placement? {
        switch (self, next) {
        case (.zero(let count), .zero(let more)): .zero(count: count &+ more)
        case (.parent(let count), .parent(let more)): .parent(count: count &+ more)
        case (.data(let offset, let count), .data(let follower, let more)) where offset &+ count == follower:
            .data(offset: offset, count: count &+ more)
        default: nil
        }
    }
}
