// A new qcow2 image, byte for byte as qemu-img makes it.

/// What a new image is to be.
public struct QCOW2Options: Equatable, Sendable {
    /// Of the disk, in bytes; a multiple of 512.
    public var byteCount: UInt64
    /// A power of two from 512 to 2 MiB.
    public var clusterBytes: UInt64
    /// Subclusters, a 32nd of a cluster each: small writes into large clusters copy little.
    public var hasExtendedL2: Bool
    /// 2 or 3.
    public var version: UInt32
    public var refcountBits: Int
    public var method: CompressedCluster.Method
    /// The parent's name, as it will stand in the image, and its format's word.
    public var backing: (name: String, format: String)?

    /// The default for new images is 128 KiB with subclusters: as much metadata as 64 KiB without, and copies of 4 KiB.
    public init(
        byteCount: UInt64,
        clusterBytes: UInt64 = 131072,
        hasExtendedL2: Bool = true,
        version: UInt32 = 3,
        refcountBits: Int = 16,
        method: CompressedCluster.Method = .deflate,
        backing: (name: String, format: String)? = nil
    ) {
        self.byteCount = byteCount
        self.clusterBytes = clusterBytes
        self.hasExtendedL2 = hasExtendedL2
        self.version = version
        self.refcountBits = refcountBits
        self.method = method
        self.backing = backing
    }

    public static func == (one: QCOW2Options, other: QCOW2Options) -> Bool {
        one.byteCount == other.byteCount && one.clusterBytes == other.clusterBytes
            && one.hasExtendedL2 == other.hasExtendedL2
            && one.version == other.version && one.refcountBits == other.refcountBits && one.method == other.method
            && one.backing?.name == other.backing?.name && one.backing?.format == other.backing?.format
    }
}

extension QCOW2Options {
    /// The largest disk: an L1 table of 32 MiB, and what a file of 2^56 bytes can hold.
    private var maximumBytes: UInt64 {
        let entry: UInt64 = hasExtendedL2 ? 16 : 8
        return min(QCOW2Header.maximumL1Bytes / 8 &* (clusterBytes / entry) &* clusterBytes, 1 << 55)
    }

    private func check() throws(ImageFault) {
        guard clusterBytes.nonzeroBitCount == 1, (512...2 << 20).contains(clusterBytes) else {
            throw ImageFault(
                .limit,
                "its clusters cannot have \(clusterBytes) bytes; use a power of two from 512 to 2097152"
            )
        }
        guard version == 2 || version == 3 else {
            throw ImageFault(.limit, "there is no version \(version); use 2 or 3")
        }
        if version == 2, hasExtendedL2 || refcountBits != 16 || method != .deflate {
            throw ImageFault(.limit, "version 2 has 16-bit refcounts, deflate and no subclusters; use version 3")
        }
        if hasExtendedL2, clusterBytes < 16384 {
            throw ImageFault(.limit, "subclusters need clusters of 16384 bytes or more")
        }
        guard [1, 2, 4, 8, 16, 32, 64].contains(refcountBits) else {
            throw ImageFault(.limit, "refcounts cannot have \(refcountBits) bits; use 1, 2, 4, 8, 16, 32 or 64")
        }
        guard byteCount > 0, byteCount % 512 == 0 else {
            throw ImageFault(.limit, "the disk's size must be a multiple of 512 bytes above 0")
        }
        guard byteCount <= maximumBytes else {
            throw ImageFault(
                .limit,
                "a disk of \(byteCount) bytes needs larger clusters than \(clusterBytes); at most \(maximumBytes)"
            )
        }
        if let backing,
            backing.name.utf8.count > 1023 || backing.name.isEmpty || backing.format.utf8.count > 16
                || backing.name.contains("\0")
        {
            throw ImageFault(.limit, "a backing file's name has 1 to 1023 bytes")
        }
    }

    /// The bytes of the new image.
    public func draft() throws(ImageFault) -> ImageDraft {
        try check()
        let header = try headerCluster()
        let layout = Layout(self)
        var draft = ImageDraft(byteCount: layout.l1Offset &+ layout.l1Entries &* 8)
        draft.put(header, at: 0)
        var table: [UInt8] = Array(repeating: 0, count: Int(layout.blocks &* 8))
        for block in 0..<layout.blocks {
            table.putBigEndian(layout.blockOffset &+ block &* clusterBytes, at: Int(block &* 8))
        }
        draft.put(table, at: layout.tableOffset)
        let counts = QCOW2RefcountLayout(
            order: UInt64(refcountBits.trailingZeroBitCount),
            clusterBits: UInt64(clusterBytes.trailingZeroBitCount)
        )
        for block in 0..<layout.blocks {
            let first = block << counts.blockBits
            let last = min(layout.usedClusters, (block &+ 1) << counts.blockBits)
            if first >= last { break }
            var bytes: [UInt8] = Array(repeating: 0, count: Int(clusterBytes))
            for cluster in first..<last { counts.set(1, of: cluster, in: &bytes) }
            // What is zero at the end need not be written.
            let kept = bytes.lastIndex { $0 != 0 }.map { $0 + 1 } ?? 0
            draft.put(Array(bytes.prefix(kept)), at: layout.blockOffset &+ block &* clusterBytes)
        }
        return draft
    }

    /// Where what is in a new image: header, refcount table, refcount blocks, L1 table.
    private struct Layout {
        let tableOffset: UInt64
        let tableClusters: UInt64
        let blockOffset: UInt64
        let blocks: UInt64
        let l1Offset: UInt64
        let l1Entries: UInt64
        let usedClusters: UInt64

        init(_ options: QCOW2Options) {
            let cluster = options.clusterBytes
            func up(_ value: UInt64, _ unit: UInt64) -> UInt64 { value / unit &+ (value % unit == 0 ? 0 : 1) }
            let perTable = cluster / (options.hasExtendedL2 ? 16 : 8)
            let perBlock = cluster &* 8 / UInt64(options.refcountBits)
            let data = up(options.byteCount, cluster)
            l1Entries = up(data, perTable)
            let l1Clusters = up(l1Entries &* 8, cluster)
            // Room in the table for all that the disk can ever need, and half as much again for leaks and snapshots'
            // tables: it never has to grow.
            let everything = data &+ l1Entries &+ l1Clusters &+ 1
            let blocksEver = up(everything &+ everything / 2, perBlock) &+ 1
            tableClusters = min(up(blocksEver &* 8, cluster), max(QCOW2Header.maximumRefcountTableBytes / cluster, 1))
            // The blocks that count the new image's own clusters, themselves among them.
            var blocks: UInt64 = 1
            while blocks &* perBlock < 1 &+ tableClusters &+ blocks &+ l1Clusters { blocks &+= 1 }
            self.blocks = blocks
            tableOffset = cluster
            blockOffset = tableOffset &+ tableClusters &* cluster
            l1Offset = blockOffset &+ blocks &* cluster
            usedClusters = 1 &+ tableClusters &+ blocks &+ l1Clusters
        }
    }

    private func headerCluster() throws(ImageFault) -> [UInt8] {
        let layout = Layout(self)
        var head: [UInt8] = Array(repeating: 0, count: version == 3 ? 112 : 72)
        head.putBigEndian(QCOW2Header.magic, at: 0)
        head.putBigEndian(version, at: 4)
        head.putBigEndian(UInt32(clusterBytes.trailingZeroBitCount), at: 20)
        head.putBigEndian(byteCount, at: 24)
        head.putBigEndian(UInt32(truncatingIfNeeded: layout.l1Entries), at: 36)
        head.putBigEndian(layout.l1Offset, at: 40)
        head.putBigEndian(layout.tableOffset, at: 48)
        head.putBigEndian(UInt32(truncatingIfNeeded: layout.tableClusters), at: 56)
        if version == 3 {
            let features =
                (method == .zstd ? QCOW2Header.Incompatible.compression : 0)
                | (hasExtendedL2 ? QCOW2Header.Incompatible.extendedL2 : 0)
            head.putBigEndian(features, at: 72)
            head.putBigEndian(UInt32(refcountBits.trailingZeroBitCount), at: 96)
            head.putBigEndian(UInt32(112), at: 100)
            head[104] = method.rawValue
        }
        if let backing { head += QCOW2Options.headerExtension(0xE279_2ACA, Array(backing.format.utf8)) }
        let names = QCOW2Options.headerExtension(0x6803_F857, QCOW2Options.featureNames)
        let nameBytes = backing?.name.utf8.count ?? 0
        // The names of features are for people, and the first thing to go where there is little room.
        if version == 3, head.count + names.count + 8 + nameBytes <= Int(clusterBytes) { head += names }
        head += [UInt8](repeating: 0, count: 8)
        if let backing {
            guard head.count + nameBytes <= Int(clusterBytes) else {
                throw ImageFault(.limit, "the backing file's name does not fit into a cluster of \(clusterBytes) bytes")
            }
            head.putBigEndian(UInt64(head.count), at: 8)
            head.putBigEndian(UInt32(nameBytes), at: 16)
            head += Array(backing.name.utf8)
        }
        return head
    }

    private static func headerExtension(_ type: UInt32, _ body: [UInt8]) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 8)
        bytes.putBigEndian(type, at: 0)
        bytes.putBigEndian(UInt32(body.count), at: 4)
        bytes += body
        while bytes.count % 8 != 0 { bytes.append(0) }
        return bytes
    }

    private static let featureNames: [UInt8] = {
        let names: [(kind: UInt8, bit: UInt8, name: String)] = [
            (0, 0, "dirty bit"), (0, 1, "corrupt bit"), (0, 2, "external data file"), (0, 3, "compression type"),
            (0, 4, "extended L2 entries"), (1, 0, "lazy refcounts"), (2, 0, "bitmaps"), (2, 1, "raw external data"),
        ]
        var bytes: [UInt8] = []
        for row in names {
            bytes += [row.kind, row.bit]
            bytes += Array(row.name.utf8)
            bytes += [UInt8](repeating: 0, count: 46 - row.name.utf8.count)
        }
        return bytes
    }()
}
