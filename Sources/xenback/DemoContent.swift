// What the demo writes: blocks whose every word identifies block and version.

import SharedRing
import SystemPackage

/// Blocks of 4 KiB, each with a version that grows with every write of it.
enum DemoContent {
    static let blockSize = 4096
    static let sectorsPerBlock = 8
    private static let words = blockSize / 8

    /// Scrambles block and version, so that no two blocks look alike (splitmix64).
    private static func seed(_ block: Int, _ version: UInt32) -> UInt64 {
        var value = UInt64(block) &* 0x9E37_79B9_7F4A_7C15 &+ UInt64(version) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ (value >> 30)) &* 0x94D0_49BB_1331_11EB
        return value ^ (value >> 31)
    }

    static func fill(_ pages: PrivatePages, at offset: Int, block: Int, version: UInt32) {
        let slot = pages.slot(at: offset, byteCount: blockSize)
        var word = seed(block, version)
        for index in 0..<words {
            slot.set64(word, at: index &* 8)
            word = word &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        }
    }

    static func matches(_ pages: PrivatePages, at offset: Int, block: Int, version: UInt32) -> Bool {
        let slot = pages.slot(at: offset, byteCount: blockSize)
        var word = seed(block, version)
        for index in 0..<words {
            if slot.u64(index &* 8) != word { return false }
            word = word &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        }
        return true
    }

    /// One block's part of the disk's checksum: FNV-1a over 64-bit words, mixed with where the block is. The parts are
    /// added up, so that they can come in any order.
    static func sum(_ pages: PrivatePages, at offset: Int, block: Int) -> UInt64 {
        let slot = pages.slot(at: offset, byteCount: blockSize)
        var sum: UInt64 = 0xCBF2_9CE4_8422_2325
        for index in 0..<words { sum = (sum ^ slot.u64(index &* 8)) &* 0x0000_0100_0000_01B3 }
        sum = (sum ^ (sum >> 32)) &* UInt64(block &* 2 &+ 1)
        return sum ^ (sum >> 29)
    }

    /// The checksum of a disk with these versions.
    static func expectedSum(_ versions: [UInt32]) throws -> UInt64 {
        let pages = try PrivatePages(byteCount: blockSize)
        var sum: UInt64 = 0
        for (block, version) in versions.enumerated() {
            fill(pages, at: 0, block: block, version: version)
            sum &+= self.sum(pages, at: 0, block: block)
        }
        return sum
    }

    /// The checksum of an image file, read as it is on the host.
    static func fileSum(_ path: FilePath, blocks: Int) throws -> UInt64 {
        let file = try FileDescriptor.open(path, .readOnly)
        return try file.closeAfter {
            let pages = try PrivatePages(byteCount: blockSize * 32)
            var sum: UInt64 = 0
            var block = 0
            while block < blocks {
                let count = min(32, blocks - block)
                // SAFETY: the range is inside `pages`, which lives until after the call.
                let buffer = unsafe UnsafeMutableRawBufferPointer(
                    start: pages.unsafeAddress(at: 0, count: count * blockSize),
                    count: count * blockSize
                )
                let read = try unsafe file.read(fromAbsoluteOffset: Int64(block * blockSize), into: buffer)
                guard read == buffer.count else { throw DemoFailure("the image file is too short") }
                for index in 0..<count { sum &+= self.sum(pages, at: index * blockSize, block: block + index) }
                block += count
            }
            return sum
        }
    }
}
