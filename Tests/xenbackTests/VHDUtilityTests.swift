// vhd-util's commands: what they print, what they exit with, and what is in the files afterwards.

import DiskImages
import Foundation
import ImageFormats
import Testing

@testable import xenback

/// A directory with images, and vhd-util in it.
final class VHDBench {
    let folder: String

    init() throws {
        let url = FileManager.default.temporaryDirectory.appendingPathComponent("vhd-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
        folder = url.resolvingSymlinksInPath().path
    }

    deinit { try? FileManager.default.removeItem(atPath: folder) }

    func path(_ name: String) -> String { "\(folder)/\(name)" }

    struct Outcome: Equatable {
        var status: Int32
        var text: String
    }

    /// Runs a command; words with a dot in them are files of the bench.
    @discardableResult
    func run(_ words: String...) -> Outcome { run(words) }

    func run(_ words: [String]) -> Outcome {
        let (status, bytes, _) = output(words)
        return Outcome(status: status, text: String(decoding: bytes, as: UTF8.self).replacing(folder + "/", with: ""))
    }

    func output(_ words: [String]) -> (status: Int32, bytes: [UInt8], errors: String) {
        var (bytes, errors): ([UInt8], String) = ([], "")
        let utility = VHDUtility(put: { bytes += $0 }, complain: { errors += $0 })
        let status = utility.run(words.map { $0.contains(".") && !"/-".contains($0.prefix(1)) ? path($0) : $0 })
        return (status, bytes, errors)
    }

    func write(_ name: String, _ byte: UInt8, sector: UInt64, count: Int) throws {
        let file = try VHDFile.open(path(name), [.writing])
        try file.write([UInt8](repeating: byte, count: count * 512), at: sector)
        try file.finish()
    }

    /// The first byte of each sector, through all parents.
    func sectors(_ name: String, _ range: Range<UInt64>) throws -> [UInt8] {
        let bytes = try VHDChain(try VHDFile.open(path(name))).read(range)
        return stride(from: 0, to: bytes.count, by: 512).map { bytes[$0] }
    }

    func size(_ name: String) throws -> Int {
        try FileManager.default.attributesOfItem(atPath: path(name))[.size] as? Int ?? 0
    }
}

@Suite struct VHDUtilityTests {
    let bench: VHDBench

    init() throws { bench = try VHDBench() }

    @Test func createAndQuery() throws {
        #expect(bench.run("create", "-n", "a.vhd", "-s", "5") == .init(status: 0, text: ""))
        #expect(try bench.size("a.vhd") == 3584)
        #expect(
            bench.run("query", "-n", "a.vhd", "-vspfdSma").text == """
                6
                3584
                a.vhd has no parent
                hidden: 0
                marker: 0
                chain depth: 1
                0
                6

                """
        )
        #expect(bench.run("check", "-n", "a.vhd") == .init(status: 0, text: "a.vhd is valid\n"))
        bench.run("create", "-n", "big.vhd", "-s", "6", "-S", "100")
        #expect(bench.run("query", "-vS", "-n\(bench.path("big.vhd"))").text == "6\n100\n")
        #expect(bench.run("create", "-n", "b.vhd", "-s", "10", "-S", "5").status == 22)
        #expect(bench.run("create", "-n", "b.vhd", "-s", "2088962").status == 22, "more than 2040 GiB")
        #expect(!FileManager.default.fileExists(atPath: bench.path("b.vhd")))
    }

    @Test func fixed() throws {
        #expect(bench.run("create", "-n", "f.vhd", "-s", "4", "-r").status == 0)
        #expect(try bench.size("f.vhd") == 4 << 20 + 512)
        #expect(bench.run("check", "-n", "f.vhd") == .init(status: 0, text: ""))
        #expect(bench.run("query", "-n", "f.vhd", "-vsp").text == "4\n4194816\nf.vhd has no parent\n")
        #expect(bench.run("query", "-n", "f.vhd", "-a") == .init(status: 22, text: "error reading bat: -22\n"))
        try bench.write("f.vhd", 7, sector: 100, count: 2)
        #expect(try bench.sectors("f.vhd", 99..<103) == [0, 7, 7, 0])
        #expect(bench.run("snapshot", "-n", "k.vhd", "-p", "f.vhd").status == 0)
        #expect(try bench.sectors("k.vhd", 99..<103) == [0, 7, 7, 0])
    }

    @Test(arguments: [
        [], ["create"], ["create", "-n", "a.vhd"], ["create", "-n", "a.vhd", "-s", "4", "more"], ["create", "-q"],
        ["query", "-v"], ["set", "-n", "a.vhd", "-f", "colour", "-v", "1"], ["resize", "-n", "a.vhd", "-s", "5"],
        ["check", "-n", "a.vhd", "-B", "-s"], ["fill", "-n", "a.vhd", "-f", "3"],
    ])
    func usage(_ words: [String]) {
        let (status, bytes, _) = bench.output(words)
        #expect(status == (words.isEmpty ? 0 : 22))
        #expect(String(decoding: bytes, as: UTF8.self).contains(words.isEmpty ? "COMMAND := { create" : "options: "))
    }

    @Test func missingImages() {
        #expect(bench.run("query", "-n", "none.vhd", "-v") == .init(status: 2, text: "error opening none.vhd: -2\n"))
        #expect(bench.run("coalesce", "-n", "none.vhd") == .init(status: 2, text: "error coalescing: -2\n"))
        #expect(bench.run("nothing").status == 0)
        #expect(bench.output(["nothing"]).errors == "invalid COMMAND nothing\n")
    }

    @Test func snapshotsOfSnapshots() throws {
        bench.run("create", "-n", "base.vhd", "-s", "4")
        try bench.write("base.vhd", 1, sector: 0, count: 10)
        #expect(bench.run("snapshot", "-n", "one.vhd", "-p", "base.vhd").status == 0)
        // An empty one is passed over, unless -e.
        bench.run("snapshot", "-n", "two.vhd", "-p", "one.vhd")
        #expect(bench.run("query", "-n", "two.vhd", "-pd").text == "base.vhd\nchain depth: 2\n")
        bench.run("snapshot", "-n", "three.vhd", "-p", "one.vhd", "-e")
        #expect(bench.run("query", "-n", "three.vhd", "-pd").text == "one.vhd\nchain depth: 3\n")
        #expect(
            bench.run("snapshot", "-n", "x.vhd", "-p", "three.vhd", "-e", "-l", "3")
                == .init(status: 28, text: "snapshot depth exceeded: current depth: 3, limit: 3\n")
        )
        try bench.write("three.vhd", 3, sector: 5, count: 2)
        #expect(try bench.sectors("three.vhd", 4..<8) == [1, 3, 3, 1])
        #expect(try bench.sectors("base.vhd", 4..<8) == [1, 1, 1, 1])
        for name in ["one.vhd", "two.vhd", "three.vhd"] {
            #expect(bench.run("check", "-n", name, "-p").text.hasPrefix("\(name) is valid\n"))
        }
    }

    @Test func rawParent() throws {
        try Data(repeating: 9, count: 3 << 20).write(to: URL(fileURLWithPath: bench.path("m.img")))
        #expect(bench.run("snapshot", "-n", "k.vhd", "-p", "m.img", "-m").status == 0)
        #expect(bench.run("query", "-n", "k.vhd", "-vpd").text == "3\nm.img\nchain depth: 2\n")
        try bench.write("k.vhd", 1, sector: 8, count: 1)
        #expect(try bench.sectors("k.vhd", 7..<10) == [9, 1, 9])
        #expect(bench.run("coalesce", "-n", "k.vhd").text == "Coalesced 1 sectors")
        let raw = try Data(contentsOf: URL(fileURLWithPath: bench.path("m.img")))
        #expect(raw[8 * 512] == 1 && raw[7 * 512] == 9 && raw.count == 3 << 20)
    }

    @Test func coalesceIntoAParent() throws {
        bench.run("create", "-n", "base.vhd", "-s", "8")
        try bench.write("base.vhd", 1, sector: 0, count: 10)
        bench.run("snapshot", "-n", "k.vhd", "-p", "base.vhd")
        try bench.write("k.vhd", 2, sector: 5, count: 10)
        try bench.write("k.vhd", 3, sector: 8192, count: 4096)
        let before = try bench.sectors("k.vhd", 0..<16384)
        #expect(bench.run("coalesce", "-n", "k.vhd") == .init(status: 0, text: "Coalesced 4106 sectors"))
        #expect(try bench.sectors("k.vhd", 0..<16384) == before)
        #expect(try bench.sectors("base.vhd", 0..<16384) == before)
        #expect(bench.run("check", "-n", "base.vhd", "-b").text == "base.vhd is valid\n")
        #expect(bench.run("read", "-n", "base.vhd", "-e", "0", "-c", "16384").text == "0 15\n8192 4096\n")
        // What does not fit is refused before anything is written.
        bench.run("create", "-n", "small.vhd", "-s", "4", "-S", "64")
        try bench.write("small.vhd", 1, sector: 0, count: 1)
        bench.run("snapshot", "-n", "large.vhd", "-p", "small.vhd", "-S", "64")
        bench.run("resize", "-n", "large.vhd", "-s", "16", "-f")
        try bench.write("large.vhd", 2, sector: 0, count: 1)
        #expect(bench.run("coalesce", "-n", "large.vhd") == .init(status: 34, text: "error coalescing: -34\n"))
        #expect(try bench.sectors("small.vhd", 0..<1) == [1])
        #expect(try bench.sectors("large.vhd", 20_000..<20_001) == [0], "behind the parent's end")
    }

    @Test func growing() throws {
        bench.run("create", "-n", "a.vhd", "-s", "4", "-S", "10")
        try bench.write("a.vhd", 1, sector: 4096, count: 4096)
        #expect(bench.run("resize", "-n", "a.vhd", "-s", "10", "-f").status == 0)
        #expect(bench.run("query", "-n", "a.vhd", "-v").text == "10\n")
        #expect(bench.run("resize", "-n", "a.vhd", "-s", "12", "-f").status == 22)
        #expect(bench.run("resize", "-n", "a.vhd", "-s", "4", "-f").status == 22)
        // Larger tables: the block moves.
        #expect(bench.run("resize", "-n", "a.vhd", "-s", "2000", "-j", "journal.j").status == 0)
        #expect(!FileManager.default.fileExists(atPath: bench.path("journal.j")))
        #expect(bench.run("query", "-n", "a.vhd", "-v").text == "2000\n")
        #expect(try bench.sectors("a.vhd", 4095..<4097) == [0, 1])
        #expect(try bench.sectors("a.vhd", 8191..<8193) == [1, 0])
        try bench.write("a.vhd", 2, sector: 4_000_000, count: 9)
        #expect(try bench.sectors("a.vhd", 4_000_000..<4_000_001) == [2])
        #expect(bench.run("check", "-n", "a.vhd", "-b").text == "a.vhd is valid\n")
        bench.run("create", "-n", "f.vhd", "-s", "2", "-r")
        #expect(bench.run("resize", "-n", "f.vhd", "-s", "4", "-j", "journal.j").status == 0)
        #expect(bench.run("query", "-n", "f.vhd", "-vs").text == "4\n4194816\n")
        #expect(bench.run("check", "-n", "f.vhd").status == 0)
    }

    @Test func childrenGrowToo() throws {
        bench.run("create", "-n", "a.vhd", "-s", "4")
        try bench.write("a.vhd", 1, sector: 0, count: 8)
        bench.run("snapshot", "-n", "k.vhd", "-p", "a.vhd")
        try bench.write("k.vhd", 2, sector: 1, count: 1)
        #expect(bench.run("resize", "-n", "k.vhd", "-s", "4000", "-j", "journal.j").status == 0)
        #expect(try bench.sectors("k.vhd", 0..<3) == [1, 2, 1])
        #expect(bench.run("query", "-n", "k.vhd", "-p").text == "a.vhd\n", "the locators have moved")
        #expect(bench.run("check", "-n", "k.vhd", "-b").text == "k.vhd is valid\n")
    }

    @Test func hideAndMark() throws {
        bench.run("create", "-n", "a.vhd", "-s", "4")
        try bench.write("a.vhd", 1, sector: 0, count: 1)
        #expect(bench.run("set", "-n", "a.vhd", "-f", "hidden", "-v", "1").status == 0)
        #expect(bench.run("set", "-n", "a.vhd", "-f", "marker", "-v", "33").status == 0)
        #expect(bench.run("query", "-n", "a.vhd", "-fm").text == "hidden: 1\nmarker: 33\n")
        #expect(bench.run("check", "-n", "a.vhd").status == 0)
        #expect(bench.run("set", "-n", "a.vhd", "-f", "hidden", "-v", "256").status == 22)
    }

    @Test func repairs() throws {
        bench.run("create", "-n", "a.vhd", "-s", "4")
        try bench.write("a.vhd", 1, sector: 0, count: 1)
        var bytes = try Data(contentsOf: URL(fileURLWithPath: bench.path("a.vhd")))
        bytes.removeLast(512)
        try bytes.write(to: URL(fileURLWithPath: bench.path("a.vhd")))
        let broken = bench.run("check", "-n", "a.vhd")
        #expect(broken == .init(status: 22, text: "primary footer invalid: invalid cookie\n"))
        #expect(bench.run("check", "-n", "a.vhd", "-i").status == 0)
        #expect(bench.run("repair", "-n", "a.vhd").status == 0)
        #expect(bench.run("check", "-n", "a.vhd").status == 0)
        #expect(try bench.sectors("a.vhd", 0..<2) == [1, 0])
    }

    @Test func modifyTheParent() throws {
        for name in ["a.vhd", "b.vhd"] { bench.run("create", "-n", name, "-s", "4") }
        try bench.write("a.vhd", 1, sector: 0, count: 1)
        try bench.write("b.vhd", 2, sector: 0, count: 1)
        bench.run("snapshot", "-n", "k.vhd", "-p", "a.vhd")
        #expect(bench.run("modify", "-n", "k.vhd", "-p", "b.vhd").status == 0)
        #expect(try bench.sectors("k.vhd", 0..<1) == [2])
        #expect(bench.run("check", "-n", "k.vhd").status == 0)
        #expect(bench.run("modify", "-n", "a.vhd", "-p", "b.vhd").status == 22)
        #expect(bench.run("modify", "-n", "b.vhd", "-z").status == 0)
        #expect(try bench.sectors("k.vhd", 0..<1) == [0])
        #expect(bench.run("query", "-n", "b.vhd", "-as").text == "3584\n0\n")
        #expect(bench.run("check", "-n", "b.vhd").status == 0)
        #expect(bench.run("modify", "-n", "b.vhd", "-s", "1024").status == 22, "less than is in use")
    }

    @Test func fills() throws {
        bench.run("create", "-n", "a.vhd", "-s", "8")
        try bench.write("a.vhd", 5, sector: 4096, count: 1)
        #expect(bench.run("fill", "-n", "a.vhd", "-b", "-f", "0", "-t", "4096").status == 0)
        #expect(bench.run("query", "-n", "a.vhd", "-a").text == "2\n")
        #expect(bench.run("fill", "-n", "a.vhd").status == 0)
        #expect(bench.run("query", "-n", "a.vhd", "-a").text == "4\n")
        #expect(try bench.sectors("a.vhd", 4095..<4098) == [0, 5, 0])
        #expect(
            bench.run("check", "-n", "a.vhd", "-s").text
                == "a.vhd: secs allocated: 0x4000 secs written: 0x4000 (100.00%)\n"
        )
    }

    @Test func scans() throws {
        bench.run("create", "-n", "base.vhd", "-s", "4")
        try bench.write("base.vhd", 1, sector: 0, count: 1)
        bench.run("set", "-n", "base.vhd", "-f", "hidden", "-v", "1")
        bench.run("snapshot", "-n", "k1.vhd", "-p", "base.vhd")
        bench.run("snapshot", "-n", "k2.vhd", "-p", "base.vhd")
        let base = "vhd=base.vhd capacity=4194304 size=2101760 hidden=1 parent=none\n"
        let line = "capacity=4194304 size=5120 hidden=0 parent=base.vhd\n"
        #expect(bench.run("scan", "k1.vhd", "base.vhd").text == "vhd=k1.vhd \(line)" + base)
        #expect(bench.run("scan", "-a", "k1.vhd").text == "vhd=k1.vhd \(line)" + base)
        let tree = bench.run(["scan", "-p", "-m", "\(bench.folder)/*.vhd"])
        #expect(tree == .init(status: 0, text: base + "   vhd=k1.vhd \(line)" + "   vhd=k2.vhd \(line)"))
        #expect(bench.run("scan", "-p", "k1.vhd").text == "vhd=k1.vhd \(line.dropLast()) (not found in scan)\n")
        #expect(bench.run("scan", "-M", "base.vhd").text.contains("hidden=1 marker=0 keyhash= parent=none"))
        try Data("no image".utf8).write(to: URL(fileURLWithPath: bench.path("text.vhd")))
        let broken = bench.run("scan", "text.vhd", "base.vhd")
        #expect(broken == .init(status: 22, text: "vhd=text.vhd scan-error=-22 error-message='opening file'\n"))
        #expect(bench.run("scan", "-c", "text.vhd", "base.vhd").status == 0)
        #expect(bench.run("scan", "-c", "text.vhd", "base.vhd").text.hasSuffix(base))
        #expect(bench.run("scan").status == 22)
    }

    @Test func reads() throws {
        bench.run("create", "-n", "a.vhd", "-s", "4")
        try bench.write("a.vhd", 0x41, sector: 3, count: 2)
        #expect(
            bench.run("read", "-n", "a.vhd", "-b", "0", "-c", "2").text
                == "block: 0: offset: 3584\nblock: 1: offset: not allocated\n"
        )
        #expect(
            bench.run("read", "-n", "a.vhd", "-t", "3", "-x").text
                == "logical sector 0x3: block number: 0, sector offset: 0x3, file offset: 0x1600\n"
        )
        #expect(
            bench.run("read", "-n", "a.vhd", "-i", "2", "-c", "2").text == "block 0: sec: 2: 0\nblock 0: sec: 3: 1\n"
        )
        #expect(bench.output(["read", "-n", "a.vhd", "-r", "3"]).bytes == [UInt8](repeating: 0x41, count: 512))
        #expect(bench.output(["read", "-n", "a.vhd", "-R", "1535", "-c", "3"]).bytes == [0, 0x41, 0x41])
        #expect(bench.output(["read", "-n", "a.vhd", "-B"]).bytes == [0x80])
        #expect(bench.output(["read", "-n", "a.vhd", "-m", "0"]).bytes.prefix(2) == [0x18, 0])
        #expect(bench.run("read", "-n", "a.vhd", "-r", "8192").status == 34)
        let headers = bench.run("read", "-p", "-n", "a.vhd").text
        for line in [
            "Creator Application : 'tap'\n", "Current disk size   : 4 MB (4194304 Bytes)\n", "(Good!)\n",
            "Geometry            : Cyl: 120, Hds: 4, Sctrs: 17\n                    : = 3 MB (4177920 Bytes)\n",
            "Disk type           : Dynamic hard disk\n", "Block size          : 2097152 (2 MB)\n",
        ] { #expect(headers.contains(line), "\(line)") }
    }

    /// Parents that are missing, other images than they were, or their own children.
    @Test func brokenChains() throws {
        for name in ["a.vhd", "other.vhd"] { bench.run("create", "-n", name, "-s", "4") }
        try bench.write("a.vhd", 1, sector: 0, count: 1)
        bench.run("snapshot", "-n", "k.vhd", "-p", "a.vhd")
        bench.run("snapshot", "-n", "l.vhd", "-p", "k.vhd", "-e")
        let files = FileManager.default
        try files.moveItem(atPath: bench.path("a.vhd"), toPath: bench.path("away.vhd"))
        #expect(bench.run("query", "-n", "k.vhd", "-p") == .init(status: 2, text: "query failed\n"))
        let (status, _, errors) = bench.output(["read", "-n", "l.vhd", "-r", "0"])
        #expect(status == 2 && errors.contains("its parent is not there: './a.vhd'"))
        #expect(errors.contains("the chain: \(bench.path("l.vhd")) → \(bench.path("k.vhd"))"))
        try files.copyItem(atPath: bench.path("other.vhd"), toPath: bench.path("a.vhd"))
        let foreign = bench.output(["read", "-n", "l.vhd", "-r", "0"])
        #expect(foreign.status == 22 && foreign.errors.contains("is another image than the parent of"))
        #expect(bench.run("check", "-n", "k.vhd").text.hasPrefix("invalid parent uuid"))
        // A loop, with the right identifiers.
        try files.removeItem(atPath: bench.path("a.vhd"))
        try files.moveItem(atPath: bench.path("away.vhd"), toPath: bench.path("a.vhd"))
        try files.removeItem(atPath: bench.path("a.vhd"))
        try files.createSymbolicLink(atPath: bench.path("a.vhd"), withDestinationPath: bench.path("l.vhd"))
        let loop = bench.output(["read", "-n", "l.vhd", "-r", "0"])
        #expect(loop.status == 22 || loop.status == 40)
        #expect(loop.errors.contains("the chain: "))
        #expect(bench.run("check", "-n", "l.vhd", "-p", "-I").status != 0)
    }

    /// A chain that was moved as a whole is found in its new place.
    @Test func movedChains() throws {
        let files = FileManager.default
        try files.createDirectory(atPath: bench.path("d"), withIntermediateDirectories: true)
        try files.createDirectory(atPath: bench.path("d/sub dir"), withIntermediateDirectories: true)
        for name in ["ä b'c.vhd", "d/\"x\".vhd"] {
            #expect(bench.run("create", "-n", bench.path("d/base.vhd"), "-s", "4").status == 0)
            try bench.write("d/base.vhd", 4, sector: 0, count: 1)
            let child = bench.path("d/sub dir/" + VHDPaths.name(of: name))
            #expect(bench.run("snapshot", "-n", child, "-p", bench.path("d/base.vhd")).status == 0)
            #expect(bench.run("query", "-u", "-p", "-n", child).text == "../base.vhd\n")
            try files.moveItem(atPath: bench.path("d"), toPath: bench.path("e"))
            let moved = child.replacing("/d/sub", with: "/e/sub")
            #expect(bench.run("query", "-p", "-n", moved).text == "e/base.vhd\n")
            #expect(bench.run("check", "-n", moved).status == 0)
            try files.moveItem(atPath: bench.path("e"), toPath: bench.path("d"))
        }
    }

    @Test func imagesInUse() throws {
        bench.run("create", "-n", "a.vhd", "-s", "4")
        let holder = try RawImage.open(bench.path("a.vhd"), ImageOptions(access: .exclusive, owner: "vbd/7/51712"))
        #expect(bench.run("query", "-n", "a.vhd", "-v").status == 0, "reading is for everybody")
        let (status, _, errors) = bench.output(["set", "-n", "a.vhd", "-f", "hidden", "-v", "1"])
        #expect(status == 16 && errors.contains("in use by"), "\(errors)")
        #expect(bench.output(["create", "-n", "a.vhd", "-s", "8"]).status == 16)
        withExtendedLifetime(holder) {}
    }
}
