// blktap's batmap: which blocks have all of their sectors, so that nobody need read their bitmaps.

/// The header behind the block allocation table, and the map that it points to.
package struct VHDBatmap: Hashable, Sendable {
    package static let headerByteCount = 512
    package static let cookie = Array("tdbatmap".utf8)

    package var fields: BigEndianBytes
    /// One bit for each block, the most significant first.
    package var map: [UInt8]
    /// False: not closed after the last write. What it says is not believed then; the bitmaps are always right.
    package var isTrusted = true

    /// Reads the header; nil if there is none.
    package init?(header bytes: some Sequence<UInt8>) {
        fields = BigEndianBytes(bytes, count: VHDBatmap.headerByteCount)
        map = []
        guard fields[0..<8] == VHDBatmap.cookie, version <= 0x10002 else { return nil }
    }

    /// A new one, for blocks none of which is full.
    package init(offset: UInt64, entries: UInt32) {
        fields = BigEndianBytes(zeros: VHDBatmap.headerByteCount)
        fields[0..<8] = VHDBatmap.cookie
        fields[u64: 8] = offset
        fields[u32: 16] = UInt32(truncatingIfNeeded: max(1, (UInt64(entries) + 4095) / 4096))
        fields[u32: 20] = 0x10002
        map = [UInt8](repeating: 0, count: Int(max(1, (UInt64(entries) + 4095) / 4096)) * 512)
    }

    /// The bytes to write.
    package var header: [UInt8] { fields.bytes }
    package var mapOffset: UInt64 { fields[u64: 8] }
    package var mapSectors: UInt32 { fields[u32: 16] }
    package var version: UInt32 { fields[u32: 20] }
    package var checksum: UInt32 { fields[u32: 24] }
    /// A byte for the toolstack's own use.
    package var marker: UInt8 {
        get { fields[u8: 28] }
        set { fields[u8: 28] = newValue }
    }
    /// The data is encrypted with a key that only its owner has.
    package var isEncrypted: Bool { fields[u8: 29] == 1 }

    /// Bytes of the map that its checksum covers: those of the disk's present size in blocks of 2 MiB.
    package static func summedByteCount(_ diskSize: UInt64) -> UInt64 { max(512, ((diskSize >> 24) + 511) / 512 * 512) }

    package func computedChecksum(_ diskSize: UInt64) -> UInt32 {
        let summed = map.prefix(Int(clamping: VHDBatmap.summedByteCount(diskSize)))
        // Version 1.1 was summed as signed characters.
        if version == 0x10001 {
            return ~summed.reduce(0) { $0 &+ UInt32(bitPattern: Int32(Int8(bitPattern: $1))) }
        }
        return ~BigEndianBytes.sum(summed)
    }

    package mutating func seal(_ diskSize: UInt64) { fields[u32: 24] = computedChecksum(diskSize) }

    /// Whether a block is marked as full.
    package subscript(block: Int) -> Bool {
        get { block >= 0 && block / 8 < map.count && map[block / 8] & 0x80 >> UInt8(block % 8) != 0 }
        set {
            guard block >= 0, block / 8 < map.count else { return }
            let bit = UInt8(0x80) >> UInt8(block % 8)
            if newValue { map[block / 8] |= bit } else { map[block / 8] &= ~bit }
        }
    }
}
