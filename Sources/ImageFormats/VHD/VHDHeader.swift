// The header of a sparse VHD: where its block allocation table is, how large blocks are, and who its parent is.

/// The 1024 bytes at the footer's `dataOffset`.
///
/// Bytes that are not known here stay as they are when it is changed and written again.
package struct VHDHeader: Hashable, Sendable {
    package static let byteCount = 1024
    package static let cookie = Array("cxsparse".utf8)
    /// The block size of all images but a few of Hyper-V's, and the largest.
    package static let usualBlockSize: UInt32 = 2 << 20
    private static let locators = 576..<768
    package static let locatorCount = 8

    package var fields: BigEndianBytes

    /// Reads a header that can be used.
    package init(parsing bytes: some Sequence<UInt8>) throws(ImageFault) {
        self.init(unchecked: bytes)
        guard fields[0..<8] == VHDHeader.cookie else { throw ImageFault(.corrupt, "header: no 'cxsparse' there") }
        guard checksum == computedChecksum else { throw ImageFault(.corrupt, "header: its checksum is wrong") }
        guard fields[u32: 24] >> 16 == 1 else {
            throw ImageFault(.corrupt, "header: version \(fields[u32: 24] >> 16), not 1")
        }
        guard fields[u64: 8] == .max else {
            throw ImageFault(.corrupt, "header: another structure follows, and none is known")
        }
        guard (512...VHDHeader.usualBlockSize).contains(blockSize), blockSize.nonzeroBitCount == 1 else {
            throw ImageFault(.corrupt, "header: block size \(blockSize) is not a power of two from 512 to 2 MiB")
        }
        guard tableOffset >= 512, tableOffset % 512 == 0 else {
            throw ImageFault(.corrupt, "header: the allocation table cannot be at byte \(tableOffset)")
        }
        for locator in (0..<VHDHeader.locatorCount).map({ self[locator: $0] }) where locator.platform == nil {
            throw ImageFault(.corrupt, "header: no platform has the code \(String(locator.rawCode, radix: 16))")
        }
    }

    package init(unchecked bytes: some Sequence<UInt8>) { fields = BigEndianBytes(bytes, count: VHDHeader.byteCount) }

    /// A new header, as blktap makes it.
    package init(entries: UInt32) {
        fields = BigEndianBytes(zeros: VHDHeader.byteCount)
        fields[0..<8] = VHDHeader.cookie
        fields[u64: 8] = .max
        fields[u64: 16] = 1536
        fields[u32: 24] = 0x10000
        fields[u32: 28] = entries
        fields[u32: 32] = VHDHeader.usualBlockSize
    }

    /// The bytes to write, with their checksum.
    package var bytes: [UInt8] {
        var sealed = fields
        sealed[u32: 36] = computedChecksum
        return sealed.bytes
    }
}

// Fields.
extension VHDHeader {
    package var nextOffset: UInt64 { fields[u64: 8] }
    package var tableOffset: UInt64 { fields[u64: 16] }
    package var version: UInt32 { fields[u32: 24] }
    /// Entries that the table has room for; a disk may use fewer, to grow later.
    package var entryCount: UInt32 {
        get { fields[u32: 28] }
        set { fields[u32: 28] = newValue }
    }
    package var blockSize: UInt32 { fields[u32: 32] }
    package var checksum: UInt32 { fields[u32: 36] }
    package var computedChecksum: UInt32 { fields.invertedSum(without: 36..<40) }
    /// The parent's identifier; null: the parent is a raw image.
    package var parent: VHDIdentifier {
        get { VHDIdentifier(fields[40..<56]) }
        set { fields[40..<56] = newValue.bytes }
    }
    /// When the parent was last changed.
    package var parentTime: VHDTime {
        get { VHDTime(seconds: fields[u32: 56]) }
        set { fields[u32: 56] = newValue.seconds }
    }
    /// The parent's file name; nil if it is no text.
    package var parentName: String? { VHDText.decode(fields[64..<576], .big) }

    /// - Returns: false if it is too long.
    package mutating func setParentName(_ name: String) -> Bool {
        let bytes = VHDText.encode(name, .big)
        guard bytes.count <= 512 else { return false }
        fields[64..<576] = bytes
        return true
    }

    package subscript(locator index: Int) -> VHDLocator {
        get {
            let place = VHDHeader.locators.lowerBound + index * VHDLocator.byteCount
            return VHDLocator(
                rawCode: fields[u32: place],
                dataSpace: fields[u32: place + 4],
                dataLength: fields[u32: place + 8],
                reserved: fields[u32: place + 12],
                dataOffset: fields[u64: place + 16]
            )
        }
        set {
            let place = VHDHeader.locators.lowerBound + index * VHDLocator.byteCount
            fields[u32: place] = newValue.rawCode
            fields[u32: place + 4] = newValue.dataSpace
            fields[u32: place + 8] = newValue.dataLength
            fields[u32: place + 12] = newValue.reserved
            fields[u64: place + 16] = newValue.dataOffset
        }
    }

    /// Those that are in use, in their order.
    package var locators: [VHDLocator] {
        (0..<VHDHeader.locatorCount).map { self[locator: $0] }.filter { !$0.isEmpty }
    }
}
