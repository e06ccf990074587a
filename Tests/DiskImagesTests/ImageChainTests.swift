// Chains of images on real files: what QEMU made, compressed clusters, and parents that are refused.

import Glibc
import ImageFormats
import SharedRing
import SystemPackage
import Testing

@testable import DiskImages

@Suite struct ImageChainTests {
    let folder = ImageFolder()
    private let writing = ImageOptions(access: .exclusive, owner: "test")
    private let reading = ImageOptions(access: .readOnly, owner: "test")

    private func open(_ name: String, _ options: ImageOptions, roots: [String]? = nil) throws(ImageFailure)
        -> WaitingEngine
    {
        let rules = ParentRules(roots: roots ?? [folder.path])
        return try WaitingEngine(try ImageChain.open("\(folder.path)/\(name)", as: .qcow2, options, rules))
    }

    private func text(_ body: () throws -> Void) -> String {
        do {
            try body()
            return "it was opened"
        } catch { return "\(error)" }
    }

    /// The whole disk.
    private func contents(_ engine: WaitingEngine) throws -> [UInt8] {
        let pages = try PrivatePages(byteCount: 1 << 20)
        var bytes: [UInt8] = []
        while UInt64(bytes.count) < engine.chain.byteCount {
            let count = min(1 << 20, engine.chain.byteCount - UInt64(bytes.count))
            try engine.read(DiskRange(start: UInt64(bytes.count), count: count), into: pages, at: 0)
            bytes += pages.slot(at: 0, byteCount: Int(count)).bytes
        }
        return bytes
    }

    /// Text, noise and holes, in all ways in which clusters can be stored.
    @Test(arguments: [
        "", "-c", "-c -o compression_type=zstd", "-c -o cluster_size=4k", "-c -o cluster_size=2M",
        "-c -o extended_l2=on,cluster_size=128k",
    ])
    func whatQEMUConvertedReadsTheSame(_ options: String) throws {
        try folder.run("seq 1 400000 > a.raw; head -c 1000000 /dev/urandom >> a.raw; truncate -s 8M a.raw")
        try folder.run("qemu-img convert -f raw -O qcow2 \(options) a.raw a.qcow2")
        #expect(try contents(try open("a.qcow2", reading)) == folder.bytes("a.raw"))
    }

    /// Writes over compressed clusters and over a parent, with QEMU as the next owner.
    @Test(arguments: ["-c", "-c -o extended_l2=on,cluster_size=128k"])
    func writesOverWhatWasCompressed(_ options: String) throws {
        try folder.run(
            "seq 1 400000 > a.raw; truncate -s 4M a.raw; qemu-img convert -f raw -O qcow2 \(options) a.raw p.qcow2"
        )
        try folder.run("cp p.qcow2 a.qcow2; qemu-img create -f qcow2 -b p.qcow2 -F qcow2 b.qcow2; cp a.raw b.raw")
        for name in ["a", "b"] {
            let engine = try open("\(name).qcow2", writing)
            let pages = try PrivatePages(byteCount: 65536)
            pages.write([UInt8](repeating: 0x77, count: 65536), at: 0)
            var expected = folder.bytes("a.raw")
            for start in stride(from: 512, to: 4 << 20, by: 333 * 512) {
                let count = min(1536, (4 << 20) - start)
                try engine.write(DiskRange(start: UInt64(start), count: UInt64(count)), from: pages, at: 0)
                expected.replaceSubrange(start..<start + count, with: [UInt8](repeating: 0x77, count: count))
            }
            #expect(try contents(engine) == expected)
            try engine.close()
            #expect(try contents(engine) == expected)
            try folder.run("qemu-img check -f qcow2 \(name).qcow2")
            folder.save(expected, "x.raw")
            try folder.run("qemu-img compare -U -f raw -F qcow2 x.raw \(name).qcow2")
        }
    }

    /// A broken stream is an error, and everything else is read.
    @Test func brokenStreamsAreErrors() throws {
        try folder.run("seq 1 400000 > a.raw; truncate -s 1M a.raw; qemu-img convert -c -f raw -O qcow2 a.raw a.qcow2")
        try folder.run(
            "printf '\\377\\377\\377\\377\\377\\377\\377\\377' | dd of=a.qcow2 bs=1 seek=$((0x50000 + 64)) conv=notrunc"
        )
        let engine = try open("a.qcow2", reading)
        let pages = try PrivatePages(byteCount: 65536)
        var failures = 0
        for cluster in 0..<16 {
            do throws(Errno) {
                try engine.read(DiskRange(start: UInt64(cluster) * 65536, count: 65536), into: pages, at: 0)
            } catch {
                #expect(error == .ioError)
                failures += 1
            }
        }
        #expect(failures >= 1 && failures < 16)
    }

    // MARK: parents

    @Test func parentsOnlyWhereTheyMayBe() throws {
        try folder.run(
            "mkdir sub; qemu-img create -f raw sub/p.raw 1M; qemu-img create -f qcow2 -b sub/p.raw -F raw a.qcow2"
        )
        _ = try open("a.qcow2", reading, roots: ["\(folder.path)/sub"])
        _ = try open("a.qcow2", reading, roots: ["/"])
        #expect(text { _ = try open("a.qcow2", reading, roots: []) }.contains("no directory is"))
        #expect(
            text { _ = try open("a.qcow2", reading, roots: ["\(folder.path)/su"]) }.contains(
                "parents are opened in configured directories"
            )
        )
        // A link that leads out of it.
        try folder.run("mv sub/p.raw q.raw; ln -s ../q.raw sub/p.raw")
        #expect(
            text { _ = try open("a.qcow2", reading, roots: ["\(folder.path)/sub"]) }.contains(
                "parents are opened in configured directories"
            )
        )
        try folder.run("rm sub/p.raw")
        #expect(text { _ = try open("a.qcow2", reading) }.contains("there is no such file"))
    }

    @Test(arguments: [
        "json:{}", "nbd://h/x", "nbd+unix:///x", "fat:rw:/x", "../../../../etc/passwd", "sub/..", "/dev/null",
    ])
    func namesThatAreNoPathsInPlace(_ name: String) throws {
        try folder.run("qemu-img create -f qcow2 -u -b '\(name)' -F raw a.qcow2 1M")
        let said = text { _ = try open("a.qcow2", reading) }
        #expect(said != "it was opened")
    }

    @Test func formatsAreNamedAndNotProbed() throws {
        try folder.run("qemu-img create -f qcow2 q.qcow2 1M; qemu-img create -f qcow2 -b q.qcow2 -F raw a.qcow2 1M")
        // The child says raw: the parent's own header is data.
        let bytes = try contents(try open("a.qcow2", reading))
        #expect(Array(bytes.prefix(4)) == [0x51, 0x46, 0x49, 0xFB])
        try folder.run("qemu-img rebase -f qcow2 -u -b q.qcow2 -F vmdk a.qcow2")
        #expect(text { _ = try open("a.qcow2", reading) }.contains("vmdk, which is not served"))
        #expect(
            text { _ = try ImageChain.open("\(folder.path)/a.qcow2", as: .raw, reading, ParentRules()) }
                == "it was opened"
        )
    }

    @Test func loopsAndLongChainsEnd() throws {
        try folder.run(
            "qemu-img create -f qcow2 -u -b b.qcow2 -F qcow2 a.qcow2 1M; qemu-img create -f qcow2 -u -b a.qcow2 -F qcow2 b.qcow2 1M"
        )
        #expect(text { _ = try open("a.qcow2", reading) }.contains("comes back"))
        try folder.run(
            "qemu-img create -f qcow2 c0.qcow2 1M; for i in $(seq 1 31); do qemu-img create -q -f qcow2 -u -b c$((i-1)).qcow2 -F qcow2 c$i.qcow2 1M; done"
        )
        _ = try open("c30.qcow2", reading)
        #expect(text { _ = try open("c31.qcow2", reading) }.contains("longer than 31"))
    }

    /// A parent that somebody writes is not read; one that others read is.
    @Test func parentsAreLocked() throws {
        try folder.run(
            "qemu-img create -f qcow2 p.qcow2 1M; for n in a b; do qemu-img create -f qcow2 -b p.qcow2 -F qcow2 $n.qcow2; done"
        )
        let first = try open("a.qcow2", writing)
        let second = try open("b.qcow2", ImageOptions(access: .exclusive, owner: "other"))
        #expect(text { _ = try open("p.qcow2", ImageOptions(access: .exclusive, owner: "third")) }.contains("in use"))
        withExtendedLifetime((first, second)) {}
    }
}

/// A directory with commands run in it.
final class ImageFolder {
    let path: String

    init() {
        var template = Array("/var/tmp/chains-XXXXXX".utf8CString)
        #expect(unsafe mkdtemp(&template) != nil)
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit { _ = unsafe system("rm -rf \(path)") }

    func run(_ command: String) throws {
        let status = unsafe system("cd \(path) && { set -e; \(command); } >out 2>&1")
        try #require(status == 0, "\(command): \(String(decoding: bytes("out"), as: UTF8.self))")
    }

    func bytes(_ name: String) -> [UInt8] {
        guard let file = try? FileDescriptor.open(FilePath("\(path)/\(name)"), .readOnly) else { return [] }
        defer { try? file.close() }
        var all: [UInt8] = []
        var part = [UInt8](repeating: 0, count: 1 << 20)
        while true {
            let count = unsafe Glibc.read(file.rawValue, &part, part.count)
            if count <= 0 { return all }
            all += part.prefix(count)
        }
    }

    func save(_ bytes: [UInt8], _ name: String) {
        guard
            let file = try? FileDescriptor.open(
                FilePath("\(path)/\(name)"),
                .writeOnly,
                options: [.create, .truncate],
                permissions: .ownerReadWrite
            )
        else { return }
        defer { try? file.close() }
        _ = try? file.writeAll(bytes)
    }
}
