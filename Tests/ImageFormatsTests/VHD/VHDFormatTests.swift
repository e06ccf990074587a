// A VHD that is written through its format: what is read back, what the file holds, and what a checker says of it.

import SystemPackage
import Testing

@testable import ImageFormats

/// A VHD in memory and what carries its plans out.
struct Disk {
    let file: MemoryFile
    let runner: PlanRunner<VHDFormat>
    var format: VHDFormat { runner.format }

    init(_ file: MemoryFile) throws {
        self.file = file
        runner = try PlanRunner(try VHDFormat.open(file, writable: true), file)
    }

    init(megabytes: UInt64, isChild: Bool = false) throws {
        let parent = isChild ? VHDParent(relativePath: "p.vhd", identifier: .random(), time: .now) : nil
        try self.init(MemoryFile(try VHDFormat.draft(VHDDraftOptions(byteCount: megabytes << 20, parent: parent))))
    }

    /// Twelve MiB in blocks of 64 KiB, the smallest that are written: much happens in little memory.
    static func small(isChild: Bool) throws -> Disk {
        let parent = isChild ? VHDParent(relativePath: "p.vhd", identifier: .random(), time: .now) : nil
        let draft = try VHDFormat.draft(VHDDraftOptions(byteCount: 192 << 21, parent: parent))
        var bytes = MemoryFile(draft).bytes
        var footer = VHDFooter(unchecked: bytes.suffix(512))
        footer.currentSize = 12 << 20
        bytes.replaceSubrange(0..<512, with: footer.bytes)
        bytes.replaceSubrange(bytes.count - 512..<bytes.count, with: footer.bytes)
        var header = VHDHeader(unchecked: bytes[512..<1536])
        header.fields[u32: 32] = 65536
        bytes.replaceSubrange(512..<1536, with: header.bytes)
        return try Disk(MemoryFile(bytes))
    }

    func write(_ byte: UInt8, sector: UInt64, count: UInt64) throws {
        let range = DiskRange(start: sector * 512, count: count * 512)
        try runner.change(.write, range, [UInt8](repeating: byte, count: Int(range.count)))
    }

    func change(_ change: ImageChange, sector: UInt64, count: UInt64) throws {
        try runner.change(change, DiskRange(start: sector * 512, count: count * 512))
    }

    /// The first byte of each sector; nil: the parent's. All bytes of a sector must be the same.
    func sectors(_ sector: UInt64, count: UInt64) throws -> [UInt8?] {
        let bytes = try runner.read(DiskRange(start: sector * 512, count: count * 512))
        return (0..<Int(count)).map { index in
            let sector = bytes[index * 512..<index * 512 + 512]
            #expect(sector.allSatisfy { $0 == sector.first })
            return sector.first ?? nil
        }
    }

    func close() throws {
        try runner.flush()
        try runner.upkeep(isClosing: true)
        try runner.flush()
    }
}

@Suite struct VHDFormatTests {
    @Test func readsWhatQEMUWrote() throws {
        let format = try VHDFormat.open(GoldenImage.qemu.source, writable: false)
        #expect(format.facts.byteCount == 0x404800, "QEMU rounds up to whole cylinders")
        let runner = try PlanRunner(format, GoldenImage.qemu.source)
        let bytes = try runner.read(DiskRange(start: 0, count: 1 << 20))
        for (place, byte) in bytes.enumerated() where byte != (65536..<73728 ~= place ? 0x5A : 0) {
            Issue.record("\(String(describing: byte)) at byte \(place)")
            break
        }
    }

    @Test func allocatesAsBlktapDoes() throws {
        let disk = try Disk(megabytes: 8)
        for block in 0..<4 as Range<UInt64> { try disk.write(0, sector: block * 4096, count: 4096) }
        try disk.close()
        let golden = GoldenImage.filled.bytes
        // All but the footers, which have identifiers and times of their own; golden ones stay in the gaps too.
        #expect(disk.file.bytes.count == golden.count)
        for range in [512..<0xC00, 0xE00..<0x1000, 0x201E00..<0x202000, 0x402E00..<0x403000] {
            #expect(disk.file.bytes[range] == golden[range], "\(range)")
        }
        #expect(try VHDFormat.check(disk.file).isClean)
    }

    @Test func sectorsOfADynamicDisk() throws {
        let disk = try Disk(megabytes: 8)
        try disk.write(1, sector: 10, count: 3)
        try disk.write(2, sector: 4090, count: 12)
        try disk.write(3, sector: 11, count: 1)
        #expect(try disk.sectors(9, count: 5) == [0, 1, 3, 1, 0])
        #expect(try disk.sectors(4089, count: 14) == [0] + Array(repeating: 2, count: 12) + [0])
        #expect(try disk.sectors(16383, count: 1) == [0])
        try disk.close()
        #expect(try VHDFormat.check(disk.file).isClean)
        let again = try Disk(disk.file)
        #expect(try again.sectors(9, count: 5) == [0, 1, 3, 1, 0])
        try again.write(4, sector: 8000, count: 200)
        #expect(try again.sectors(7999, count: 2) == [0, 4])
    }

    @Test func sectorsOfADifferencingDisk() throws {
        let disk = try Disk(megabytes: 8, isChild: true)
        #expect(try disk.sectors(0, count: 2) == [nil, nil])
        try disk.write(1, sector: 10, count: 2)
        #expect(try disk.sectors(9, count: 4) == [nil, 1, 1, nil])
        try disk.change(.zero, sector: 11, count: 3)
        #expect(try disk.sectors(9, count: 6) == [nil, 1, 0, 0, 0, nil])
        // Zeros in a block that is not there hide the parent's.
        try disk.change(.zero, sector: 5000, count: 1)
        #expect(try disk.sectors(4999, count: 3) == [nil, 0, nil])
        try disk.close()
        #expect(try VHDFormat.check(disk.file).isClean)
    }

    @Test func discards() throws {
        let disk = try Disk(megabytes: 8)
        try disk.write(7, sector: 0, count: 100)
        try disk.change(.discard, sector: 10, count: 20)
        #expect(try disk.sectors(9, count: 22) == [7] + Array(repeating: 0, count: 20) + [7])
        let before = disk.file.bytes.count
        try disk.change(.discard, sector: 4096, count: 4096)
        try disk.change(.zero, sector: 8192, count: 10)
        #expect(disk.file.bytes.count == before, "what is zero already needs no block")
        let child = try Disk(megabytes: 8, isChild: true)
        try child.change(.discard, sector: 4096, count: 4096)
        #expect(try child.sectors(4095, count: 3) == [nil, 0, 0], "a whole block hides the parent's")
        try child.write(1, sector: 0, count: 8)
        try child.change(.discard, sector: 0, count: 8)
        #expect(try child.sectors(0, count: 9) == Array(repeating: 0, count: 8) + [nil])
        try child.change(.discard, sector: 0, count: 4096)
        #expect(try child.sectors(0, count: 4096) == Array(repeating: 0, count: 4096))
        try child.close()
        #expect(try VHDFormat.check(child.file).isClean)
    }

    /// A block that has become full one way or another is known without its bitmap, in the next life too.
    @Test func fullBlocksAreInTheBatmap() throws {
        let disk = try Disk(megabytes: 8)
        for sector in stride(from: 0, to: 4096, by: 512) as StrideTo<UInt64> {
            try disk.write(1, sector: sector, count: 512)
        }
        try disk.write(2, sector: 5000, count: 1)
        try disk.close()
        let structures = try VHDStructures(disk.file)
        #expect(structures.sparse?.batmap?.isTrusted == true)
        #expect(structures.sparse?.batmap?[0] == true && structures.sparse?.batmap?[1] == false)
        let format = try VHDFormat.open(disk.file, writable: false)
        let empty = try MetadataCache(capacity: 0)
        guard case .data(_, let count) = format.place(DiskRange(start: 0, count: 2 << 20), empty) else {
            Issue.record("it needs the bitmap of a full block")
            return
        }
        #expect(count == 2 << 20)
    }

    /// Sums of a batmap that do not fit: it is not believed, and written anew when the image is closed.
    @Test func aBatmapThatWasNotClosed() throws {
        let disk = try Disk(megabytes: 8)
        try disk.write(1, sector: 0, count: 4096)
        try disk.close()
        var bytes = disk.file.bytes
        bytes[0xA00] = 0xC0
        #expect(try VHDFormat.check(MemoryFile(bytes)).corruptions == 0)
        let again = try Disk(MemoryFile(bytes))
        #expect(try again.sectors(4096, count: 2) == [0, 0], "block 1 is not full, nor there")
        #expect(try again.sectors(0, count: 2) == [1, 1])
        try again.close()
        #expect(try VHDStructures(again.file).sparse?.batmap?.isTrusted == true)
        #expect(try VHDFormat.check(again.file).isClean)
    }

    /// What a crash left behind the last block is not shown as zeros of a new one.
    @Test func staleTail() throws {
        let disk = try Disk(megabytes: 8)
        var bytes = disk.file.bytes
        bytes += [UInt8](repeating: 0xEE, count: 3 << 20)
        let again = try Disk(MemoryFile(bytes))
        try again.runner.upkeep(isClosing: false)
        #expect(try VHDStructures(again.file).isFooterAtEnd)
        try again.write(1, sector: 8, count: 1)
        #expect(try again.sectors(7, count: 3) == [0, 1, 0])
        try again.close()
        let data = again.file.bytes[0x1000..<0x1000 + (2 << 20)]
        #expect(!data.contains(0xEE))
        var options = VHDCheckOptions()
        options.readsData = true
        #expect(try VHDCheck(again.file, options).problems.allSatisfy { !$0.isCorruption && !$0.fails })
    }

    /// A full file system: the request fails, the next one as well, and when there is room all goes on.
    @Test func noSpace() throws {
        let disk = try Disk(megabytes: 64)
        try disk.write(1, sector: 0, count: 8)
        let end = disk.file.bytes.count
        disk.file.limit = end
        for _ in 0..<20 {
            #expect(throws: Errno.noSpace) { try disk.write(2, sector: 4096, count: 8) }
            #expect(try disk.sectors(4095, count: 3) == [0, 0, 0])
            #expect(try VHDFormat.check(disk.file).corruptions == 0)
        }
        try disk.write(3, sector: 1, count: 1)
        disk.file.limit = .max
        try disk.write(4, sector: 4096, count: 8)
        try disk.close()
        #expect(try disk.sectors(0, count: 3) == [1, 3, 1])
        #expect(try disk.sectors(4096, count: 2) == [4, 4])
        #expect(disk.file.bytes.count <= end + (3 << 20), "failures cost no space")
        #expect(try VHDFormat.check(disk.file).isClean)
    }

    /// Room for the block's ends, but not for its middle.
    @Test func noSpaceInTheMiddle() throws {
        let disk = try Disk(megabytes: 64)
        disk.file.limit = disk.file.bytes.count + 4096
        for _ in 0..<5 { #expect(throws: Errno.noSpace) { try disk.write(2, sector: 0, count: 4096) } }
        #expect(try VHDFormat.check(disk.file).corruptions == 0)
        disk.file.limit = .max
        try disk.write(3, sector: 0, count: 4096)
        try disk.close()
        #expect(try VHDFormat.check(disk.file).isClean)
    }

    /// Two tebibytes: the last address, and no further.
    @Test func theLastBlock() throws {
        let header = VHDHeader(entries: 1 << 20)
        let layout = VHDLayout(header)
        var table = [UInt8](repeating: 0xFF, count: 4 << 20)
        let start = UInt32((1 << 32) - 3 * 4097)
        table.replaceSubrange(0..<4, with: [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: start >> $0) })
        var map = try VHDMap(layout, table: table, count: 1 << 20, headerEnd: 5 << 20)
        let next = try #require(map.nextPlace())
        map.reserve(next)
        #expect(map.endSector <= 1 << 32)
        #expect(map.nextPlace() == nil)
    }

    @Test func blocksThatOverlap() throws {
        var bytes = GoldenImage.filled.bytes
        for (entry, fault) in [(0x2018, "block"), (2, "headers"), (0xFFFF_F000, "sector 2^32")] as [(UInt32, String)] {
            bytes.replaceSubrange(0x604..<0x608, with: [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: entry >> $0) })
            let thrown = #expect(throws: ImageFault.self) { try VHDFormat.open(MemoryFile(bytes), writable: false) }
            if entry != 0x2018 { #expect(thrown?.text.contains(fault) == true) }
            #expect(try VHDFormat.check(MemoryFile(bytes)).corruptions > 0)
        }
    }
}
