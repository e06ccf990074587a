// Cylinders, heads and sectors as Virtual PC computes them from a size.

/// A disk's CHS geometry (VHD format specification, appendix "CHS calculation"), as the footer packs it.
package struct VHDGeometry: Hashable, Sendable {
    package let cylinders: UInt16
    package let heads: UInt8
    package let sectorsPerTrack: UInt8

    /// The largest: what all bigger disks have.
    private static let largest: UInt64 = 65535 * 16 * 255

    package init(packed: UInt32) {
        cylinders = UInt16(truncatingIfNeeded: packed >> 16)
        heads = UInt8(truncatingIfNeeded: packed >> 8)
        sectorsPerTrack = UInt8(truncatingIfNeeded: packed)
    }

    /// The geometry of a disk of `byteCount` bytes; a part of a sector counts as one.
    package init(byteCount: UInt64) {
        let sectors = min(byteCount / 512 + (byteCount % 512 == 0 ? 0 : 1), VHDGeometry.largest)
        var (perTrack, heads): (UInt64, UInt64)
        if sectors >= 65535 * 16 * 63 {
            (perTrack, heads) = (255, 16)
        } else {
            (perTrack, heads) = (17, max(4, (sectors / 17 + 1023) / 1024))
            if sectors / 17 >= heads * 1024 || heads > 16 { (perTrack, heads) = (31, 16) }
            if sectors / perTrack >= heads * 1024 { (perTrack, heads) = (63, 16) }
        }
        cylinders = UInt16(truncatingIfNeeded: sectors / perTrack / heads)
        self.heads = UInt8(truncatingIfNeeded: heads)
        sectorsPerTrack = UInt8(truncatingIfNeeded: perTrack)
    }

    package var packed: UInt32 { UInt32(cylinders) << 16 | UInt32(heads) << 8 | UInt32(sectorsPerTrack) }

    /// Bytes that it addresses: at most the disk's size, and less for most disks.
    package var byteCount: UInt64 { UInt64(cylinders) * UInt64(heads) * UInt64(sectorsPerTrack) * 512 }

    /// Whether it is the largest one, which says nothing about the size.
    package var isLargest: Bool { byteCount == VHDGeometry.largest * 512 }
}
