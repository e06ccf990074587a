// The structures of VHDs against files of other programs, and against bytes that are wrong.

import Testing

@testable import ImageFormats

@Suite struct VHDStructureTests {
    @Test func footerOfBlktap() throws {
        let bytes = GoldenImage.dynamic.bytes
        let footer = try VHDFooter(parsing: bytes.suffix(512))
        #expect(footer.kind == .dynamic)
        #expect(footer.creator == "tap" && footer.creatorVersion == 0x10003 && footer.creatorSystem == 0)
        #expect(footer.currentSize == 4 << 20 && footer.originalSize == 4 << 20)
        #expect(footer.geometry.packed == 0x0078_0411)
        #expect(footer.dataOffset == 512 && footer.saved == 0 && footer.hidden == 0)
        #expect("\(footer.identifier)" == "9e782558-cf2b-4390-9880-231aa5cd817c")
        #expect(footer.time.unix == 1_795_907_259)
        #expect(footer.bytes == Array(bytes.suffix(512)))
        #expect(footer.sizeWarning == nil)
    }

    @Test func headerOfBlktap() throws {
        let bytes = GoldenImage.child.bytes
        let header = try VHDHeader(parsing: bytes[512..<1536])
        #expect(header.tableOffset == 1536 && header.entryCount == 2 && header.blockSize == 2 << 20)
        #expect("\(header.parent)" == "9e782558-cf2b-4390-9880-231aa5cd817c")
        #expect(header.parentName == "t.vhd")
        #expect(header.locators.map(\.platform) == [.macURL, .windowsAbsolute, .windowsRelative])
        #expect(header.locators.map(\.dataOffset) == [0xC00, 0xE00, 0x1000])
        #expect(header.bytes == Array(bytes[512..<1536]))
        let texts = header.locators.map { $0.paths(of: Array(bytes[Int($0.dataOffset)...].prefix(Int($0.dataLength)))) }
        #expect(texts == [["./t.vhd"], ["./t.vhd"], ["./t.vhd"]])
    }

    /// Ours are the same bytes as blktap's.
    @Test func newImagesAreBlktaps() throws {
        for (golden, size, largest) in [(GoldenImage.dynamic, 4, 4), (.roomy, 6, 100)]
            as [(GoldenImage, UInt64, UInt64)]
        {
            let footer = try VHDFooter(parsing: golden.bytes.suffix(512))
            var options = VHDDraftOptions(byteCount: size << 20, identifier: footer.identifier, time: footer.time)
            options.largestByteCount = largest << 20
            #expect(MemoryFile(try VHDFormat.draft(options)).bytes == golden.bytes)
        }
        for (golden, name) in [(GoldenImage.child, "t.vhd"), (.onRaw, "raw.img")] {
            let bytes = golden.bytes
            let footer = try VHDFooter(parsing: bytes.suffix(512))
            let header = try VHDHeader(parsing: bytes[512..<1536])
            let parent = VHDParent(relativePath: name, identifier: header.parent, time: header.parentTime)
            let options = VHDDraftOptions(
                byteCount: 4 << 20,
                identifier: footer.identifier,
                time: footer.time,
                parent: parent
            )
            #expect(MemoryFile(try VHDFormat.draft(options)).bytes == bytes)
        }
    }

    @Test func fixedImages() throws {
        let draft = try VHDFormat.draft(fixed: 3 << 20)
        let file = MemoryFile(draft)
        #expect(file.byteCount == 3 << 20 + 512)
        #expect(try VHDFormat.check(file).isClean)
        let format = try VHDFormat.open(file, writable: true)
        let cache = try MetadataCache(capacity: 0)
        #expect(format.facts.byteCount == 3 << 20)
        #expect(format.place(DiskRange(start: 512, count: 4096), cache) == .data(offset: 512, count: 4096))
        #expect(format.placeWrite(DiskRange(start: 512, count: 4096), cache) == .inPlace(offset: 512, count: 4096))
        let qemu = try VHDFormat.open(GoldenImage.qemuFixed.source, writable: false)
        #expect(qemu.facts.byteCount == 1 << 20)
    }

    /// What the guest of a fixed disk has at its beginning is no footer, whatever it looks like.
    @Test func aGuestCannotMakeAFooter() throws {
        var bytes = MemoryFile(try VHDFormat.draft(fixed: 3 << 20)).bytes
        bytes.replaceSubrange(0..<512, with: MemoryFile(try VHDFormat.draft(fixed: 1 << 20)).bytes.suffix(512))
        bytes.removeLast(512)
        #expect(throws: ImageFault(.corrupt, "footer: missing at the end")) {
            try VHDFormat.open(MemoryFile(bytes), writable: false)
        }
    }

    @Test(
        arguments: [
            (4, 0x0078_0411), (10, 0x012d_0411), (100, 0x03eb_0c11), (504, 0x0400_103f), (8064, 0x4000_103f),
            (32256, 0x3f3f_10ff), (130_559, 0xffff_10ff), (2_088_960, 0xffff_10ff),
        ] as [(UInt64, UInt32)]
    )
    func geometry(_ megabytes: UInt64, _ packed: UInt32) {
        #expect(VHDGeometry(byteCount: megabytes << 20).packed == packed)
    }

    /// Virtual PC's old footers have 511 bytes.
    @Test func shortFooter() throws {
        var bytes = GoldenImage.dynamic.bytes
        bytes.removeLast()
        let structures = try VHDStructures(MemoryFile(bytes))
        #expect(structures.isFooterAtEnd && structures.footer.currentSize == 4 << 20)
        #expect(try VHDFormat.check(MemoryFile(bytes)).isClean)
    }

    /// After a crash only the copy at the beginning is there.
    @Test func footerAtTheBeginning() throws {
        var bytes = GoldenImage.dynamic.bytes
        bytes.removeLast(512)
        let structures = try VHDStructures(MemoryFile(bytes), [.writing])
        #expect(!structures.isFooterAtEnd && structures.footer.kind == .dynamic)
        let report = try VHDFormat.check(MemoryFile(bytes))
        #expect(report.corruptions == 0 && report.leaks == 1)
        #expect(report.findings.first?.text == "primary footer invalid: invalid cookie")
    }

    /// Early versions of blktap hid images without a new checksum.
    @Test func hiddenWithoutChecksum() throws {
        var fields = try VHDFooter(parsing: GoldenImage.dynamic.bytes.suffix(512)).fields
        fields[u32: 32] = 0x10001
        var footer = VHDFooter(unchecked: fields.bytes)
        footer = VHDFooter(unchecked: footer.bytes)
        footer.fields[u8: 85] = 1
        let hidden = try VHDFooter(parsing: footer.fields.bytes)
        #expect(hidden.hidden == 1)
        footer.fields[u8: 86] = 1
        #expect(throws: ImageFault.self) { try VHDFooter(parsing: footer.fields.bytes) }
    }

    @Test func journalledResize() throws {
        var bytes = GoldenImage.dynamic.bytes
        var footer = try VHDFooter(parsing: bytes.suffix(512))
        footer.isJournalled = true
        bytes.replaceSubrange(0..<512, with: footer.bytes)
        bytes.replaceSubrange(bytes.count - 512..<bytes.count, with: footer.bytes)
        let fault = #expect(throws: ImageFault.self) { try VHDStructures(MemoryFile(bytes)) }
        #expect(fault?.kind == .unsupported && fault?.text.contains("vhd-util revert") == true)
        #expect(throws: Never.self) { try VHDStructures(MemoryFile(bytes), [.journalled]) }
    }

    /// One field at a time gets a value that cannot be; sums are made right, so that only the field is wrong.
    @Test(
        arguments: [
            (12, 4, 0x20000), (16, 8, 0), (16, 8, 513), (16, 8, 1 << 62), (48, 8, 0), (48, 8, 511), (48, 8, 1 << 42),
            (48, 8, 8 << 20), (60, 4, 0), (60, 4, 7), (32, 4, 1),
        ] as [(Int, Int, UInt64)]
    )
    func badFooters(_ place: Int, _ width: Int, _ value: UInt64) throws {
        var bytes = GoldenImage.dynamic.bytes
        var footer = VHDFooter(unchecked: bytes.suffix(512))
        if width == 8 { footer.fields[u64: place] = value } else { footer.fields[u32: place] = UInt32(value) }
        bytes.replaceSubrange(0..<512, with: footer.bytes)
        bytes.replaceSubrange(bytes.count - 512..<bytes.count, with: footer.bytes)
        #expect(throws: ImageFault.self) { try VHDFormat.open(MemoryFile(bytes), writable: false) }
        #expect(try !VHDFormat.check(MemoryFile(bytes)).isClean)
    }

    @Test(
        arguments: [
            (8, 8, 0), (16, 8, 0), (16, 8, 1), (16, 8, 1 << 62), (16, 8, UInt64.max - 511), (24, 4, 0x20000),
            (28, 4, 0),
            (28, 4, 1), (28, 4, 0xFFFF_FFFF), (32, 4, 0), (32, 4, 256), (32, 4, 3 << 20), (32, 4, 4 << 20),
            (576, 4, 0x1234_5678),
        ] as [(Int, Int, UInt64)]
    )
    func badHeaders(_ place: Int, _ width: Int, _ value: UInt64) throws {
        var bytes = GoldenImage.dynamic.bytes
        var header = VHDHeader(unchecked: bytes[512..<1536])
        if width == 8 { header.fields[u64: place] = value } else { header.fields[u32: place] = UInt32(value) }
        bytes.replaceSubrange(512..<1536, with: header.bytes)
        #expect(throws: ImageFault.self) { try VHDFormat.open(MemoryFile(bytes), writable: false) }
        #expect(try !VHDFormat.check(MemoryFile(bytes)).isClean)
    }

    /// Cut at every structure, and everywhere in between: an error or an image, never more.
    @Test func truncated() throws {
        for golden in [GoldenImage.dynamic, .child, .roomy] {
            let bytes = golden.bytes
            for count in stride(from: 0, through: bytes.count, by: 64) {
                let file = MemoryFile(Array(bytes.prefix(count)))
                _ = try? VHDFormat.open(file, writable: false)
                _ = try? VHDFormat.open(file, writable: true)
                _ = try VHDFormat.check(file)
            }
        }
    }

    /// Any byte of the headers may be anything.
    @Test func hostileBytes() throws {
        var chance = Chance(state: 7)
        let golden = GoldenImage.child.bytes
        for _ in 0..<3000 {
            var bytes = golden
            for _ in 0..<Int.random(in: 1...8, using: &chance) {
                let place = Int.random(in: 0..<bytes.count, using: &chance)
                bytes[place] = [0, 1, 0x7F, 0x80, 0xFF].randomElement(using: &chance) ?? 0
            }
            // With sums that fit, so that what they protect is looked at.
            let footer = VHDFooter(unchecked: bytes.suffix(512))
            bytes.replaceSubrange(bytes.count - 512..<bytes.count, with: footer.bytes)
            bytes.replaceSubrange(0..<512, with: footer.bytes)
            bytes.replaceSubrange(512..<1536, with: VHDHeader(unchecked: bytes[512..<1536]).bytes)
            let file = MemoryFile(bytes)
            _ = try VHDFormat.check(file)
            guard let format = try? VHDFormat.open(file, writable: false) else { continue }
            let cache = try MetadataCache(capacity: 0)
            _ = format.place(DiskRange(start: 0, count: format.facts.byteCount), cache)
        }
    }
}
