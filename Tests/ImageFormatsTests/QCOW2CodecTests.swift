// qcow2's header, entries and refcounts: golden bytes, and bytes that must be refused.

import Testing

@testable import ImageFormats

@Suite struct QCOW2CodecTests {
    private func header(_ options: QCOW2Options, _ change: (inout [UInt8]) -> Void = { _ in }) throws(ImageFault)
        -> QCOW2Header
    {
        var bytes = FakeFile(try options.draft()).bytes
        change(&bytes)
        return try QCOW2Header(reading: FakeFile(bytes))
    }

    private let small = QCOW2Options(byteCount: 1 << 20, clusterBytes: 65536, hasExtendedL2: false)

    /// Byte for byte what `qemu-img create -f qcow2 a 1M` writes.
    @Test func aNewImageIsQEMUs() throws {
        let draft = try small.draft()
        #expect(draft.byteCount == 196616)
        let bytes = FakeFile(draft).bytes
        func word(_ offset: Int) -> UInt64 { bytes.bigEndian(at: offset) ?? 0 }
        let golden: [Int: UInt64] = [
            0: 0x5146_49FB_0000_0003, 0x10: 0x10, 0x18: 0x10_0000, 0x20: 1, 0x28: 0x30000, 0x30: 0x10000,
            0x38: 0x0000_0001_0000_0000, 0x60: 0x0000_0004_0000_0070, 0x70: 0x6803_F857_0000_0180, 0x10000: 0x20000,
            0x20000: 0x0001_0001_0001_0001,
        ]
        for (offset, value) in golden { #expect(word(offset) == value, "at \(String(offset, radix: 16))") }
        for offset in stride(from: 0, to: bytes.count, by: 8)
        where golden[offset] == nil && !(0x78..<0x1F8).contains(offset) {
            #expect(word(offset) == 0, "at \(String(offset, radix: 16))")
        }
    }

    @Test(arguments: [
        ("-o cluster_size=64k", QCOW2Options(byteCount: 1 << 30, clusterBytes: 65536, hasExtendedL2: false)),
        ("-o compat=0.10", QCOW2Options(byteCount: 1 << 30, clusterBytes: 65536, hasExtendedL2: false, version: 2)),
        ("-o extended_l2=on,cluster_size=128k", QCOW2Options(byteCount: 1 << 30)),
        (
            "-o compression_type=zstd",
            QCOW2Options(byteCount: 1 << 30, clusterBytes: 65536, hasExtendedL2: false, method: .zstd)
        ),
        (
            "-o refcount_bits=64",
            QCOW2Options(byteCount: 1 << 30, clusterBytes: 65536, hasExtendedL2: false, refcountBits: 64)
        ),
        (
            "-b p.raw -F raw",
            QCOW2Options(byteCount: 1 << 30, clusterBytes: 65536, hasExtendedL2: false, backing: ("p.raw", "raw"))
        ),
    ])
    func newImagesAreQEMUs(_ words: String, _ options: QCOW2Options) throws {
        let folder = Folder()
        let theirs = try QEMU.image(folder, "truncate -s 1G p.raw", "qemu-img create -f qcow2 \(words) a.qcow2 1G")
        let ours = FakeFile(try options.draft())
        #expect(ours.bytes == theirs.bytes)
    }

    /// Sizes and clusters of all kinds: QEMU finds nothing wrong, and there is room in the refcount table for ever.
    @Test(arguments: [9, 12, 16, 21], [UInt64(512), 1 << 20, 1 << 30])
    func newImagesAreClean(_ bits: Int, _ size: UInt64) throws {
        let options = QCOW2Options(byteCount: size, clusterBytes: 1 << UInt64(bits), hasExtendedL2: false)
        let file = FakeFile(try options.draft())
        #expect(try QCOW2Format.check(file).isClean)
        #expect(try QEMU.check(file.bytes, in: Folder()) == 0)
    }

    @Test func backingNameAndFormat() throws {
        let header = try header(
            QCOW2Options(byteCount: 1 << 20, clusterBytes: 65536, hasExtendedL2: false, backing: ("pat.raw", "raw"))
        )
        #expect(header.backingName == "pat.raw" && header.backingFormat == "raw")
    }

    /// Offset, value, width: what QEMU refuses too, and what it should.
    @Test(arguments: [
        (36, 0xFFFF_FFFF, 4), (56, 0xFFFF_FFFF, 4), (60, 0xFFFF_FFFF, 4), (100, 0xFFFF_FFFF, 4), (56, 0, 4),
        (20, 0x1F, 4),
        (20, 8, 4), (96, 7, 4), (4, 1, 4), (4, 4, 4), (0, 0, 4), (32, 1, 4), (32, 2, 4), (24, 0, 8), (24, 1000, 8),
        (24, Int(Int64.max) & ~511, 8), (24, -512, 8), (36, 0, 4), (40, 0, 8), (40, 1, 8), (40, 0x30200, 8),
        (40, 0x4000_0000, 8), (40, -65536, 8), (48, 0, 8), (48, 0x30000, 8), (48, -65536, 8), (60, 65537, 4),
        (72, 4, 8),
        (72, 32, 8), (72, 8, 8), (104, 1, 1), (104, 2, 1), (100, 8, 4), (100, 105, 4), (100, 0x10008, 4), (8, 1, 8),
        (8, -1, 8), (8, 0xFFFF, 8),
        (0x74, 0xFFFF_FFFF, 4), (0x74, 0x7FFF_FFFF, 4),
    ])
    func headersThatAreRefused(_ offset: Int, _ value: Int, _ width: Int) {
        #expect(throws: ImageFault.self) {
            _ = try header(small) { bytes in
                if offset == 8 { bytes.putBigEndian(UInt32(1024), at: 16) }
                for index in 0..<width {
                    bytes[offset + index] = UInt8(truncatingIfNeeded: value >> (8 * (width - 1 - index)))
                }
            }
        }
    }

    @Test func featuresAreNamed() throws {
        do {
            _ = try header(small) { bytes in
                bytes[72 + 7] = 0x20
                // A row of the table for bit 5, with a character that a terminal must not see.
                bytes.replaceSubrange(0x78..<0x7E, with: [0, 5, 0x41, 0x1B, 0x42, 0])
            }
            Issue.record("it was opened")
        } catch { #expect(error.text == "it needs features that are not supported: A?B") }
    }

    /// Every byte of the first 128 with values that hurt: an error or an image, never a trap.
    @Test func noHeaderTraps() throws {
        let bytes = FakeFile(try small.draft()).bytes
        for offset in 0..<128 {
            for value: UInt8 in [0, 1, 2, 0x7F, 0x80, 0xFF] {
                var changed = bytes
                changed[offset] = value
                _ = try? QCOW2Format.check(FakeFile(changed))
            }
        }
        for count in 0..<200 { _ = try? QCOW2Format.check(FakeFile(Array(bytes.prefix(count)))) }
    }

    // MARK: entries and refcounts

    @Test func standardEntries() throws {
        let header = try header(small)
        #expect(QCOW2Entry(0, 0, header) == QCOW2Entry())
        let data = try #require(QCOW2Entry(0x8000_0000_0005_0000, 0, header))
        #expect(data.host == 0x50000 && data.isCopied && data.allocated == 1 && data.zeroes == 0)
        #expect(data.words(extended: false).first == 0x8000_0000_0005_0000)
        let zero = try #require(QCOW2Entry(1, 0, header))
        #expect(zero.zeroes == 1 && zero.host == 0)
        for wrong: UInt64 in [
            0x8000_0000_0005_0002, 0x0100_0000_0005_0000, 0x8000_0000_0005_0200, 0x8000_0000_0000_0000,
            0xC000_0000_0005_0000,
        ] {
            #expect(QCOW2Entry(wrong, 0, header) == nil, "\(String(wrong, radix: 16))")
        }
    }

    /// Clusters of 512 bytes: entries that `qemu-img convert -c` made.
    @Test func compressedEntries() throws {
        let header = try header(QCOW2Options(byteCount: 1 << 16, clusterBytes: 512, hasExtendedL2: false))
        let first = try #require(QCOW2Entry(0x4000_0000_0000_0A00, 0, header)?.compressed)
        #expect(first.offset == 0xA00 && first.byteCount == 512 && first.clusterBytes == 512)
        let second = try #require(QCOW2Entry(0x4000_0000_0000_0A08, 0, header)?.compressed)
        #expect(second.offset == 0xA08 && second.byteCount == 504)
    }

    @Test func extendedEntries() throws {
        let header = try header(QCOW2Options(byteCount: 1 << 20, clusterBytes: 16384))
        let entry = try #require(QCOW2Entry(0x8000_0000_0001_4000, 0x0000_0004_0000_0002, header))
        #expect(entry.content(0) == .parent && entry.content(1) == .data && entry.content(2) == .zero)
        #expect(QCOW2Entry(0x8000_0000_0001_4000, 0x0000_0002_0000_0002, header) == nil, "both bits")
        #expect(QCOW2Entry(0, 1, header) == nil, "data without a cluster")
        #expect(QCOW2Entry(1, 0, header) == nil, "the zero flag is not for these")
        #expect(QCOW2Entry(0x4000_0000_0001_4000, 1, header) == nil, "compressed subclusters")
    }

    /// In a byte the first count is in the least significant bits.
    @Test(arguments: [0, 1, 2, 3, 4, 5, 6])
    func refcountsOfEveryWidth(_ order: UInt64) {
        let counts = QCOW2RefcountLayout(order: order, clusterBits: 9)
        var block = [UInt8](repeating: 0, count: 512)
        for cluster: UInt64 in 0..<8 { counts.set(cluster & counts.maximum, of: cluster, in: &block) }
        for cluster: UInt64 in 0..<8 { #expect(counts.value(of: cluster, in: block) == cluster & counts.maximum) }
        counts.set(counts.maximum, of: 3, in: &block)
        #expect(
            counts.value(of: 3, in: block) == counts.maximum && counts.value(of: 2, in: block) == 2 & counts.maximum
        )
        let golden: [UInt64: [UInt8]] = [
            0: [0xAA | 8], 1: [0xE4], 2: [0x10], 3: [0, 1], 4: [0, 0, 0, 1], 5: [0, 0, 0, 0, 0, 0, 0, 1],
        ]
        if let expected = golden[order] { #expect(Array(block.prefix(expected.count)) == expected) }
    }
}
