// Names and paths as VHDs spell them.

import Testing

@testable import ImageFormats

@Suite struct VHDTextTests {
    @Test(arguments: ["t.vhd", "größe.vhd", "a b'c\".vhd", "日本.vhd", "😀.vhd"])
    func roundTrip(_ name: String) {
        for order in [UTF16Order.big, .little] {
            #expect(VHDText.decode(VHDText.encode(name, order), order) == name)
            #expect(VHDText.decode(VHDText.encode(name, order) + [0, 0, 0xD8, 0xD8], order) == name, "up to its NUL")
        }
        for platform in VHDFormat.writtenPlatforms {
            let text = VHDLocator.text("../base/\(name)", for: platform)
            let locator = VHDLocator(
                rawCode: platform.rawValue,
                dataSpace: 512,
                dataLength: UInt32(text.count),
                reserved: 0,
                dataOffset: 512
            )
            let wanted = platform == .macURL ? "../base/\(name)" : "./../base/\(name)"
            #expect(locator.paths(of: text).first == wanted)
        }
    }

    @Test func halvesOfPairsAreNoText() {
        #expect(VHDText.decode([0xD8, 0x3D], .big) == nil)
        #expect(VHDText.decode([0x00, 0xDE], .little) == nil)
        #expect(VHDText.decode([0x00, 0x61, 0x00], .big) == nil, "an odd byte")
    }

    @Test(arguments: [
        ("C:\\images\\p.vhd", "/images/p.vhd"), ("c:p.vhd", "p.vhd"), (".\\p.vhd", "./p.vhd"),
        ("..\\p.vhd", "../p.vhd"),
        ("\\\\server\\share\\p.vhd", "//server/share/p.vhd"),
    ])
    func windowsPaths(_ text: String, _ path: String) { #expect(VHDText.path(ofWindows: text) == path) }

    @Test(arguments: [
        ("file://./t.vhd", ["./t.vhd"]), ("file:///a/t.vhd", ["/a/t.vhd"]), ("file://localhost/a/t.vhd", ["/a/t.vhd"]),
        ("file://./a%20b.vhd", ["./a%20b.vhd", "./a b.vhd"]), ("http://a/t.vhd", []), ("t.vhd", []),
        ("file://./100%.vhd", ["./100%.vhd"]), ("file://./%ff.vhd", ["./%ff.vhd"]), ("file://./%+1.vhd", ["./%+1.vhd"]),
    ])
    func urls(_ text: String, _ paths: [String]) { #expect(VHDText.paths(ofURL: text) == paths) }

    /// Below 512 the room of a locator can only be sectors.
    @Test func roomOfLocators() {
        func locator(_ space: UInt32, length: UInt32 = 10, offset: UInt64 = 1024) -> VHDLocator {
            VHDLocator(
                rawCode: VHDPlatform.windowsRelative.rawValue,
                dataSpace: space,
                dataLength: length,
                reserved: 0,
                dataOffset: offset
            )
        }
        #expect(locator(1).byteCount == 512 && locator(512).byteCount == 512 && locator(513).byteCount == nil)
        #expect((try? locator(1).textRange(within: 4096)) == 1024..<1034)
        for bad in [
            locator(0), locator(600), locator(1 << 20), locator(512, length: 0), locator(512, length: 513),
            locator(512, offset: 0), locator(512, offset: 4090), locator(512, offset: .max),
        ] { #expect(throws: ImageFault.self) { try bad.textRange(within: 4096) } }
    }

    /// Relative names are tried first, each once, and the name in the header is the last resort.
    @Test func parentsInOrder() throws {
        let parent = VHDParent(relativePath: "../base/p.vhd", identifier: .random(), time: .now)
        var file = MemoryFile(try VHDFormat.draft(VHDDraftOptions(byteCount: 4 << 20, parent: parent)))
        let format = try VHDFormat.open(file, writable: false)
        #expect(format.facts.parent?.paths == ["../base/p.vhd", "./../base/p.vhd", "./p.vhd"])
        #expect(format.facts.parent?.format == "vhd" && format.facts.parent?.identifier == parent.identifier.bytes)
        // The first locator becomes an absolute one.
        var bytes = file.bytes
        let text = VHDLocator.text("/srv/p.vhd", for: .macURL)
        var header = try VHDHeader(parsing: bytes[512..<1536])
        bytes.replaceSubrange(0xC00..<0xC00 + text.count, with: text)
        var locator = header[locator: 0]
        locator.dataLength = UInt32(text.count)
        header[locator: 0] = locator
        bytes.replaceSubrange(512..<1536, with: header.bytes)
        file = MemoryFile(bytes)
        let paths = try VHDFormat.open(file, writable: false).facts.parent?.paths
        #expect(paths == ["./../base/p.vhd", "./p.vhd", "/srv/p.vhd"])
    }

    @Test(arguments: ["", "a/..", "a\\b.vhd", String(repeating: "x", count: 257), "a\0b"])
    func namesThatCannotBe(_ path: String) {
        let parent = VHDParent(relativePath: path, identifier: .random(), time: .now)
        #expect(throws: ImageFault.self) { try VHDFormat.draft(VHDDraftOptions(byteCount: 4 << 20, parent: parent)) }
    }
}
