// qcow2's header (docs/interop/qcow2.txt, "Header"): parsed once, checked whole.

/// The words of the header and its extensions, checked: every sum of them fits, and every table lies in the file.
struct QCOW2Header: Equatable {
    static let magic: UInt32 = 0x5146_49FB
    /// The limits of QEMU (block/qcow2.h), and of this daemon's memory.
    static let maximumL1Bytes: UInt64 = 32 << 20
    static let maximumRefcountTableBytes: UInt64 = 8 << 20
    static let maximumSnapshots: UInt32 = 65536
    static let maximumBackingName: UInt32 = 1023

    enum Incompatible {
        static let dirty: UInt64 = 1
        static let corrupt: UInt64 = 2
        static let dataFile: UInt64 = 4
        static let compression: UInt64 = 8
        static let extendedL2: UInt64 = 16
        static let known: UInt64 = 31
    }
    enum Autoclear {
        static let bitmaps: UInt64 = 1
        static let rawDataFile: UInt64 = 2
    }
    /// Where fields stand that are written while the image is used.
    enum Field {
        static let incompatible: UInt64 = 72
        static let autoclear: UInt64 = 88
    }

    var version: UInt32
    var clusterBits: UInt32
    /// The disk's size in bytes.
    var byteCount: UInt64
    var l1Entries: UInt32
    var l1Offset: UInt64
    var refcountTableOffset: UInt64
    var refcountTableClusters: UInt32
    var snapshotCount: UInt32
    var snapshotsOffset: UInt64
    var incompatible: UInt64 = 0
    var compatible: UInt64 = 0
    var autoclear: UInt64 = 0
    /// Refcounts have 2 to the power of this bits.
    var refcountOrder: UInt32 = 4
    var headerLength: UInt32 = 72
    var method = CompressedCluster.Method.deflate
    var backingName: String?
    var backingFormat: String?
    var bitmaps: Bitmaps?

    /// The bitmaps extension.
    struct Bitmaps: Equatable {
        var count: UInt32
        var directoryBytes: UInt64
        var directoryOffset: UInt64
    }

    var clusterBytes: UInt64 { 1 << UInt64(clusterBits) }
    var hasExtendedL2: Bool { incompatible & Incompatible.extendedL2 != 0 }
    var isDirty: Bool { incompatible & Incompatible.dirty != 0 }
    var isCorrupt: Bool { incompatible & Incompatible.corrupt != 0 }
    /// A cluster's entry in an L2 table has 2 to the power of this bytes.
    var entryBits: UInt32 { hasExtendedL2 ? 4 : 3 }
    /// An L2 table maps 2 to the power of this clusters.
    var l2Bits: UInt32 { clusterBits &- entryBits }
    var subclusters: Int { hasExtendedL2 ? 32 : 1 }
    /// L1 entries that the disk's size needs.
    var neededL1Entries: UInt64 {
        let span = UInt64(1) << UInt64(clusterBits &+ l2Bits)
        return byteCount / span &+ (byteCount % span == 0 ? 0 : 1)
    }

    /// - Throws: what is wrong, in words; nothing of a wrong image is used.
    init(reading source: borrowing some ImageSource) throws(ImageFault) {
        let head: [UInt8]
        do { head = try source.read(at: 0, count: 512) } catch {
            throw ImageFault(.storage(error), "cannot be read: \(error)")
        }
        try self.init(fixedFields: head)
        try checkFields()
        let count = Int(clusterBytes)
        let cluster: [UInt8]
        do { cluster = try source.read(at: 0, count: count) } catch {
            throw ImageFault(.storage(error), "cannot be read: \(error)")
        }
        try readVariable(cluster)
        try checkFeatures(cluster)
        try checkTables(fileBytes: source.byteCount)
    }

    private init(fixedFields head: [UInt8]) throws(ImageFault) {
        func u32(_ offset: Int) -> UInt32 { head.bigEndian(at: offset) ?? 0 }
        func u64(_ offset: Int) -> UInt64 { head.bigEndian(at: offset) ?? 0 }
        guard u32(0) == QCOW2Header.magic else { throw ImageFault(.foreign, "is not a qcow2 image") }
        version = u32(4)
        guard version == 2 || version == 3 else {
            throw ImageFault(.unsupported, "is qcow2 of version \(version); versions 2 and 3 are supported")
        }
        clusterBits = u32(20)
        byteCount = u64(24)
        guard u32(32) == 0 else {
            throw ImageFault(.unsupported, "is encrypted, which is not supported; convert it with qemu-img")
        }
        l1Entries = u32(36)
        l1Offset = u64(40)
        refcountTableOffset = u64(48)
        refcountTableClusters = u32(56)
        snapshotCount = u32(60)
        snapshotsOffset = u64(64)
        guard version == 3 else { return }
        incompatible = u64(72)
        compatible = u64(80)
        autoclear = u64(88)
        refcountOrder = u32(96)
        headerLength = u32(100)
        // Fields behind the header's length are not there.
        if headerLength > 104, head[104] != 0 {
            guard head[104] == 1 else {
                throw ImageFault(.unsupported, "its clusters are compressed by an unknown method (\(head[104]))")
            }
            method = .zstd
        }
    }

    private func checkFields() throws(ImageFault) {
        guard (9...21).contains(clusterBits) else {
            throw ImageFault(.corrupt, "its clusters cannot have 2^\(clusterBits) bytes")
        }
        if hasExtendedL2, clusterBits < 14 { throw ImageFault(.corrupt, "its clusters are too small for subclusters") }
        guard refcountOrder <= 6 else {
            throw ImageFault(.corrupt, "its refcounts cannot have 2^\(refcountOrder) bits")
        }
        if version == 3, headerLength < 104 || headerLength % 8 != 0 || UInt64(headerLength) > clusterBytes {
            throw ImageFault(.corrupt, "its header cannot have \(headerLength) bytes")
        }
        guard byteCount > 0, byteCount % 512 == 0, byteCount <= UInt64(Int64.max) else {
            throw ImageFault(
                .limit,
                "its disk has \(byteCount) bytes, which is not a multiple of 512 above 0; qemu-img resize changes it"
            )
        }
        if (method == .zstd) != (incompatible & Incompatible.compression != 0) {
            throw ImageFault(.corrupt, "its header contradicts itself about compression")
        }
    }

    private func checkTables(fileBytes: UInt64) throws(ImageFault) {
        let l1Bytes = UInt64(l1Entries) &* 8
        guard l1Bytes <= QCOW2Header.maximumL1Bytes else {
            throw ImageFault(.limit, "its L1 table is too large (\(l1Entries) entries)")
        }
        guard UInt64(l1Entries) >= neededL1Entries else {
            throw ImageFault(.corrupt, "its L1 table is too small for its disk")
        }
        let tableBytes = UInt64(refcountTableClusters) << UInt64(clusterBits)
        guard refcountTableClusters > 0 else {
            throw ImageFault(.corrupt, "it has no refcount table; qemu-img check -r all may repair it")
        }
        guard tableBytes <= QCOW2Header.maximumRefcountTableBytes else {
            throw ImageFault(.limit, "its refcount table is too large")
        }
        guard snapshotCount <= QCOW2Header.maximumSnapshots else {
            throw ImageFault(.limit, "it has too many snapshots (\(snapshotCount))")
        }
        let end = roundedUp(fileBytes)
        var ranges: [(String, DiskRange)] = []
        for (name, offset, count) in [
            ("L1 table", l1Offset, l1Bytes), ("refcount table", refcountTableOffset, tableBytes),
            ("snapshot table", snapshotsOffset, UInt64(snapshotCount) &* 40),
        ] where count > 0 {
            guard offset % clusterBytes == 0, offset >= clusterBytes,
                let range = DiskRange(checking: offset, count: count),
                range.end <= end
            else { throw ImageFault(.corrupt, "its \(name) cannot be at \(offset)") }
            for (other, taken) in ranges where taken.overlaps(range) {
                throw ImageFault(.corrupt, "its \(name) overlaps its \(other)")
            }
            ranges.append((name, range))
        }
    }

    /// Up to whole clusters: the file's end is arbitrary.
    func roundedUp(_ fileBytes: UInt64) -> UInt64 {
        let (sum, overflow) = fileBytes.addingReportingOverflow(clusterBytes &- 1)
        return overflow ? ~(clusterBytes &- 1) : sum & ~(clusterBytes &- 1)
    }
}

// The rest of the first cluster.
extension QCOW2Header {
    private enum ExtensionType {
        static let end: UInt32 = 0
        static let backingFormat: UInt32 = 0xE279_2ACA
        static let featureNames: UInt32 = 0x6803_F857
        static let bitmaps: UInt32 = 0x2385_2875
    }

    private mutating func readVariable(_ cluster: [UInt8]) throws(ImageFault) {
        let nameOffset: UInt64 = cluster.bigEndian(at: 8) ?? 0
        let nameBytes: UInt32 = cluster.bigEndian(at: 16) ?? 0
        var end = cluster.count
        if nameOffset != 0 {
            guard nameOffset >= UInt64(headerLength), nameBytes <= QCOW2Header.maximumBackingName,
                nameOffset <= UInt64(cluster.count),
                UInt64(nameBytes) <= UInt64(cluster.count) &- nameOffset
            else { throw ImageFault(.corrupt, "its backing file's name cannot be where its header says") }
            let start = Int(nameOffset)
            if nameBytes > 0 {
                guard let name = String(validating: cluster[start..<start + Int(nameBytes)], as: UTF8.self),
                    !name.contains("\0")
                else {
                    throw ImageFault(.unsupported, "its backing file's name is not UTF-8")
                }
                backingName = name
                end = start
            }
        }
        try readExtensions(cluster, end: end)
    }

    private mutating func readExtensions(_ cluster: [UInt8], end: Int) throws(ImageFault) {
        for (type, body) in try QCOW2Header.extensions(in: cluster, from: Int(headerLength), to: end) {
            switch type {
            case ExtensionType.backingFormat:
                guard body.count <= 16, let name = String(validating: body, as: UTF8.self) else {
                    throw ImageFault(.corrupt, "the format of its backing file is no word")
                }
                backingFormat = name
            case ExtensionType.bitmaps:
                let bytes = Array(body)
                guard bytes.count == 24, let count: UInt32 = bytes.bigEndian(at: 0),
                    let size: UInt64 = bytes.bigEndian(at: 8),
                    let offset: UInt64 = bytes.bigEndian(at: 16), (1...65535).contains(count), size <= 64 << 20,
                    offset % clusterBytes == 0, offset >= clusterBytes, DiskRange(checking: offset, count: size) != nil
                else { throw ImageFault(.corrupt, "its bitmaps extension is wrong") }
                bitmaps = Bitmaps(count: count, directoryBytes: size, directoryOffset: offset)
            default: break
            }
        }
    }

    /// All extensions between header and backing name. A cluster bounds their number.
    private static func extensions(
        in cluster: [UInt8],
        from start: Int,
        to end: Int
    ) throws(ImageFault) -> [(type: UInt32, body: ArraySlice<UInt8>)] {
        var found: [(type: UInt32, body: ArraySlice<UInt8>)] = []
        var position = start
        while position <= end - 8 {
            guard let type: UInt32 = cluster.bigEndian(at: position),
                let length: UInt32 = cluster.bigEndian(at: position + 4),
                type != ExtensionType.end
            else { break }
            position += 8
            guard Int(length) <= end - position else {
                throw ImageFault(.corrupt, "a header extension is longer than its room")
            }
            found.append((type, cluster[position..<position + Int(length)]))
            position += (Int(length) + 7) & ~7
        }
        return found
    }

    /// Features that are not known make an image unreadable, by its own word.
    private func checkFeatures(_ cluster: [UInt8]) throws(ImageFault) {
        let unknown = incompatible & ~Incompatible.known
        if unknown != 0 {
            let names = (0..<64).filter { unknown >> UInt64($0) & 1 != 0 }.map {
                featureName(0, UInt8($0), cluster) ?? "bit \($0)"
            }
            throw ImageFault(.unsupported, "it needs features that are not supported: \(names.joined(separator: ", "))")
        }
        if incompatible & Incompatible.dataFile != 0 {
            throw ImageFault(
                .unsupported,
                "its data is in another file, which is not supported; convert it with qemu-img convert"
            )
        }
    }

    /// A feature's name as the image gives it, printable.
    private func featureName(_ kind: UInt8, _ bit: UInt8, _ cluster: [UInt8]) -> String? {
        guard let all = try? QCOW2Header.extensions(in: cluster, from: Int(headerLength), to: cluster.count),
            let table = all.first(where: { $0.type == ExtensionType.featureNames })?.body
        else { return nil }
        var row = table.startIndex
        while row + 48 <= table.endIndex {
            if table[row] == kind, table[row + 1] == bit {
                return String(
                    decoding: table[row + 2..<row + 48].prefix { $0 != 0 }.map { (32..<127).contains($0) ? $0 : 63 },
                    as: UTF8.self
                )
            }
            row += 48
        }
        return nil
    }
}
