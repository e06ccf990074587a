// The footer: what every VHD ends with, and a dynamic one begins with.

internal import Glibc

/// The unique identifier of an image, which its children name.
package struct VHDIdentifier: Hashable, Sendable, CustomStringConvertible {
    package let bytes: [UInt8]

    package init(_ bytes: [UInt8]) { self.bytes = bytes }

    /// A new one (RFC 4122, version 4).
    package static func random() -> VHDIdentifier {
        var bytes = (0..<16).map { _ in UInt8.random(in: 0...255) }
        bytes[6] = bytes[6] & 0x0F | 0x40
        bytes[8] = bytes[8] & 0x3F | 0x80
        return VHDIdentifier(bytes)
    }

    /// All zero: the parent is a raw image.
    package static let null = VHDIdentifier([UInt8](repeating: 0, count: 16))
    package var isNull: Bool { self == VHDIdentifier.null }

    package var description: String {
        let digits = bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }
        return [0..<4, 4..<6, 6..<8, 8..<10, 10..<16].map { digits[$0].joined() }.joined(separator: "-")
    }
}

/// Seconds since 2000-01-01 00:00 UTC, as VHDs count them.
package struct VHDTime: Hashable, Sendable {
    package let seconds: UInt32
    private static let epoch: Int64 = 946_684_800

    package init(seconds: UInt32) { self.seconds = seconds }
    /// - Parameter unix: seconds since 1970; what cannot be said is cut to 32 bits, as vhd-util does.
    package init(unix: Int64) { seconds = UInt32(truncatingIfNeeded: unix &- VHDTime.epoch) }

    package static var now: VHDTime { VHDTime(unix: Int64(time(nil))) }
    package var unix: Int64 { Int64(seconds) + VHDTime.epoch }
}

/// What a VHD is, by the footer's type.
package enum VHDKind: UInt32, Sendable {
    case fixed = 2
    case dynamic = 3
    case differencing = 4

    /// Whether it has a header and a block allocation table.
    package var isSparse: Bool { self != .fixed }
}

/// The 512 bytes at the end of a VHD, copied to the beginning of a sparse one.
///
/// Bytes that are not known here stay as they are when it is changed and written again.
package struct VHDFooter: Hashable, Sendable {
    package static let byteCount = 512
    package static let cookie = Array("conectix".utf8)
    /// Written over the cookie while vhd-util's journalled resize runs.
    package static let poison = Array("v_poison".utf8)
    private static let checksumField = 64..<68

    package var fields: BigEndianBytes

    /// Reads a footer of 512 bytes, or of 511 as old versions of Virtual PC wrote it.
    ///
    /// What it throws for cannot be used; what only a checker complains about is accepted.
    package init(parsing bytes: some Sequence<UInt8>) throws(ImageFault) {
        self.init(unchecked: bytes)
        guard fields[0..<8] == VHDFooter.cookie || isJournalled else {
            throw ImageFault(.corrupt, "footer: no 'conectix' there")
        }
        guard hasValidChecksum else { throw ImageFault(.corrupt, "footer: its checksum is wrong") }
        guard fields[u32: 12] >> 16 == 1 else {
            throw ImageFault(.corrupt, "footer: format version \(fields[u32: 12] >> 16), not 1")
        }
        guard VHDKind(rawValue: rawKind) != nil else {
            throw ImageFault(.corrupt, "footer: disk type \(rawKind) is not fixed (2), dynamic (3) or differencing (4)")
        }
        if isFromTapdisk, creatorVersion == 1 {
            throw ImageFault(.corrupt, "footer: written by blktap 0.1, whose bitmaps are the other way round")
        }
        guard currentSize > 0, currentSize % 512 == 0 else {
            throw ImageFault(.corrupt, "footer: a disk of \(currentSize) bytes is not made of sectors")
        }
        // The largest that block addresses of 32 bits reach, in any kind.
        guard currentSize <= 1 << 41 else {
            throw ImageFault(.corrupt, "footer: \(currentSize) bytes: a VHD has 2 TiB at most")
        }
    }

    /// Any 512 bytes, for checkers and for what prints a broken one.
    package init(unchecked bytes: some Sequence<UInt8>) { fields = BigEndianBytes(bytes, count: VHDFooter.byteCount) }

    /// A new footer, as blktap makes it.
    package init(_ kind: VHDKind, byteCount: UInt64, identifier: VHDIdentifier, time: VHDTime) {
        fields = BigEndianBytes(zeros: VHDFooter.byteCount)
        fields[0..<8] = VHDFooter.cookie
        fields[u32: 8] = 2
        fields[u32: 12] = 0x10000
        fields[u64: 16] = kind.isSparse ? 512 : .max
        fields[u32: 24] = time.seconds
        fields[28..<32] = Array("tap".utf8)
        fields[u32: 32] = 0x10003
        fields[u64: 40] = byteCount
        fields[u32: 60] = kind.rawValue
        fields[68..<84] = identifier.bytes
        currentSize = byteCount
    }

    /// The bytes to write, with their checksum.
    package var bytes: [UInt8] {
        var sealed = fields
        sealed[u32: 64] = computedChecksum
        return sealed.bytes
    }
}

// Fields.
extension VHDFooter {
    /// Its first and only cookie is vhd-util's mark of an unfinished resize.
    package var isJournalled: Bool {
        get { fields[0..<8] == VHDFooter.poison }
        set { fields[0..<8] = newValue ? VHDFooter.poison : VHDFooter.cookie }
    }
    package var features: UInt32 { fields[u32: 8] }
    package var formatVersion: UInt32 { fields[u32: 12] }
    /// Where the header is: 512 in nearly all images.
    package var dataOffset: UInt64 { fields[u64: 16] }
    package var time: VHDTime { VHDTime(seconds: fields[u32: 24]) }
    /// Four characters: `tap`, `qemu`, `vpc `, `win `.
    package var creator: String { String(decoding: fields[28..<32].prefix { $0 != 0 }, as: UTF8.self) }
    package var creatorVersion: UInt32 { fields[u32: 32] }
    package var creatorSystem: UInt32 { fields[u32: 36] }
    package var originalSize: UInt64 {
        get { fields[u64: 40] }
        set { fields[u64: 40] = newValue }
    }
    /// The disk's size in bytes. The geometry follows it.
    package var currentSize: UInt64 {
        get { fields[u64: 48] }
        set {
            fields[u64: 48] = newValue
            fields[u32: 56] = VHDGeometry(byteCount: newValue).packed
        }
    }
    package var geometry: VHDGeometry { VHDGeometry(packed: fields[u32: 56]) }
    package var rawKind: UInt32 { fields[u32: 60] }
    package var kind: VHDKind { VHDKind(rawValue: rawKind) ?? .fixed }
    package var checksum: UInt32 { fields[u32: 64] }
    package var computedChecksum: UInt32 { fields.invertedSum(without: VHDFooter.checksumField) }
    package var identifier: VHDIdentifier {
        get { VHDIdentifier(fields[68..<84]) }
        set { fields[68..<84] = newValue.bytes }
    }
    package var saved: UInt8 { fields[u8: 84] }
    /// XenServer's mark of a base copy that no user sees.
    package var hidden: UInt8 {
        get { fields[u8: 85] }
        set { fields[u8: 85] = newValue }
    }

    /// blktap's images, whose creator also tells whether they have a batmap.
    package var isFromTapdisk: Bool { fields[28..<31] == Array("tap".utf8) }
    /// Made by a newer blktap than any that is known.
    package var isFromLaterTapdisk: Bool { isFromTapdisk && creatorVersion > 0x10003 }
    private var isFromEarlyTapdisk: Bool { isFromTapdisk && (creatorVersion == 1 || creatorVersion == 0x10001) }

    /// Early versions of blktap set `hidden` without a new checksum.
    package var hasValidChecksum: Bool {
        if checksum == computedChecksum { return true }
        return hidden != 0 && isFromEarlyTapdisk && checksum == computedChecksum &+ UInt32(hidden)
    }

    /// Whether two copies say the same; early versions of blktap set `hidden` in the first one only.
    package func matches(backup: VHDFooter) -> Bool {
        if fields == backup.fields { return true }
        guard backup.hidden != 0, backup.isFromEarlyTapdisk else { return false }
        var visible = backup
        visible.hidden = 0
        return fields == visible.fields
    }

    /// A remark where other programs take the disk for one of another size: QEMU goes by the geometry for these two
    /// creators, and everybody else by the size.
    package var sizeWarning: String? {
        guard ["vpc ", "qemu"].contains(creator), !geometry.isLargest, geometry.byteCount != currentSize else {
            return nil
        }
        return
            "size \(currentSize), but geometry \(geometry.byteCount) bytes: QEMU serves the latter, all others the former"
    }
}
