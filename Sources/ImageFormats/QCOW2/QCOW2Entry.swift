// One cluster's entry in an L2 table (docs/interop/qcow2.txt, "Cluster mapping"), standard or with subclusters.

/// Where a cluster is. A standard cluster is one with a single subcluster.
struct QCOW2Entry: Equatable {
    static let copied: UInt64 = 1 << 63
    static let compressedFlag: UInt64 = 1 << 62
    static let offsetMask: UInt64 = 0x00FF_FFFF_FFFF_FE00
    private static let reservedStandard: UInt64 = 0x3F00_0000_0000_01FE
    private static let reservedExtended: UInt64 = 0x3F00_0000_0000_01FF

    /// The host cluster; 0 if there is none.
    var host: UInt64 = 0
    /// Nobody else refers to the host cluster.
    var isCopied = false
    var compressed: CompressedCluster?
    /// Subclusters whose data is in the host cluster.
    var allocated: UInt32 = 0
    /// Subclusters that read as zeroes.
    var zeroes: UInt32 = 0

    init() {}

    /// nil: a value that cannot be.
    init?(_ first: UInt64, _ second: UInt64, _ header: borrowing QCOW2Header) {
        if first & QCOW2Entry.compressedFlag != 0 {
            guard first & QCOW2Entry.copied == 0, second == 0 else { return nil }
            compressed = QCOW2Entry.compressed(first, header)
            return
        }
        host = first & QCOW2Entry.offsetMask
        isCopied = first & QCOW2Entry.copied != 0
        if header.hasExtendedL2 {
            guard first & QCOW2Entry.reservedExtended == 0 else { return nil }
            allocated = UInt32(truncatingIfNeeded: second)
            zeroes = UInt32(truncatingIfNeeded: second >> 32)
            guard allocated & zeroes == 0, host != 0 || allocated == 0 else { return nil }
        } else {
            guard first & QCOW2Entry.reservedStandard == 0 else { return nil }
            // Version 2 has no such bit (there it is reserved).
            let isZero = first & 1 != 0
            if isZero, header.version < 3 { return nil }
            zeroes = isZero ? 1 : 0
            allocated = host != 0 && !isZero ? 1 : 0
        }
        // The bit speaks of a cluster.
        if host == 0, isCopied { return nil }
        if host & (header.clusterBytes &- 1) != 0 { return nil }
    }

    private static func compressed(_ first: UInt64, _ header: borrowing QCOW2Header) -> CompressedCluster {
        let split = UInt64(62 &- (header.clusterBits &- 8))
        let offset = first & (1 << split &- 1) & 0x00FF_FFFF_FFFF_FFFF
        let sectors = (first & (QCOW2Entry.compressedFlag &- 1)) >> split
        let count = (sectors &+ 1) &* 512 &- (offset & 511)
        return CompressedCluster(
            method: header.method,
            offset: offset,
            byteCount: Int(truncatingIfNeeded: count),
            clusterBytes: Int(truncatingIfNeeded: header.clusterBytes)
        )
    }

    /// The words of the table; for entries that are not compressed.
    func words(extended: Bool) -> (first: UInt64, second: UInt64) {
        let first = host | (isCopied ? QCOW2Entry.copied : 0)
        if extended { return (first, UInt64(zeroes) << 32 | UInt64(allocated)) }
        return (first | (zeroes != 0 ? 1 : 0), 0)
    }

    /// What a subcluster reads as.
    enum Content { case data, zero, parent }

    func content(_ subcluster: Int) -> Content {
        if allocated >> UInt32(truncatingIfNeeded: subcluster) & 1 != 0 { return .data }
        return zeroes >> UInt32(truncatingIfNeeded: subcluster) & 1 != 0 ? .zero : .parent
    }
}
