// qcow2 images at work: random requests whose operations end in any order, compared with a model and with QEMU.

import SystemPackage
import Testing

@testable import ImageFormats

/// A kind of image to test on.
struct ImageKind: CustomTestStringConvertible, Sendable {
    var name: String
    var options: QCOW2Options
    /// Sectors of the parent; 0: none.
    var parentSectors = 0
    var parentIsQCOW2 = false
    var testDescription: String { name }

    static let size = 1 << 20

    static let all: [ImageKind] = [
        ImageKind(
            name: "64 KiB",
            options: QCOW2Options(byteCount: UInt64(size), clusterBytes: 65536, hasExtendedL2: false)
        ),
        ImageKind(
            name: "4 KiB",
            options: QCOW2Options(byteCount: UInt64(size), clusterBytes: 4096, hasExtendedL2: false)
        ),
        ImageKind(
            name: "512 bytes",
            options: QCOW2Options(byteCount: UInt64(size / 4), clusterBytes: 512, hasExtendedL2: false)
        ),
        ImageKind(name: "16 KiB with subclusters", options: QCOW2Options(byteCount: UInt64(size), clusterBytes: 16384)),
        ImageKind(name: "128 KiB with subclusters, odd size", options: QCOW2Options(byteCount: UInt64(size - 512 * 7))),
        ImageKind(
            name: "version 2",
            options: QCOW2Options(byteCount: UInt64(size), clusterBytes: 8192, hasExtendedL2: false, version: 2)
        ),
        ImageKind(
            name: "1-bit refcounts",
            options: QCOW2Options(byteCount: UInt64(size), clusterBytes: 4096, hasExtendedL2: false, refcountBits: 1)
        ),
        ImageKind(
            name: "on a raw parent",
            options: QCOW2Options(
                byteCount: UInt64(size),
                clusterBytes: 8192,
                hasExtendedL2: false,
                backing: ("p", "raw")
            ),
            parentSectors: 1200
        ),
        ImageKind(
            name: "subclusters on a raw parent",
            options: QCOW2Options(byteCount: UInt64(size), clusterBytes: 32768, backing: ("p", "raw")),
            parentSectors: 2048
        ),
        ImageKind(
            name: "on a qcow2 parent",
            options: QCOW2Options(
                byteCount: UInt64(size),
                clusterBytes: 4096,
                hasExtendedL2: false,
                backing: ("p", "qcow2")
            ),
            parentSectors: 2048,
            parentIsQCOW2: true
        ),
    ]

    var sectors: Int { Int(options.byteCount / 512) }

    /// The parent's disk by stamps; what it does not reach is zero.
    var parentStamps: [Int] { (0..<sectors).map { $0 < parentSectors && $0 % 5 != 0 ? -1 - $0 : 0 } }

    private func parent() throws -> FakeFile? {
        if parentSectors == 0 { return nil }
        let bytes = (0..<parentSectors).flatMap { DiskModel.bytes($0 < sectors ? parentStamps[$0] : 0) }
        if !parentIsQCOW2 { return FakeFile(bytes) }
        let file = FakeFile(
            try QCOW2Options(byteCount: UInt64(parentSectors * 512), clusterBytes: 16384, hasExtendedL2: false).draft()
        )
        let rig = try EngineRig([try QCOW2Format.open(forWriting: file)], [file])
        for sector in 0..<parentSectors where parentStamps[sector] != 0 {
            try rig.write(UInt64(sector) * 512, DiskModel.bytes(parentStamps[sector]))
        }
        try rig.close()
        return file
    }

    /// The chain's files: the leaf, new, and its parent.
    func files() throws -> [FakeFile] { [FakeFile(try options.draft())] + [try parent()].compactMap { $0 } }

    /// The formats on files; the leaf's bytes may be others than those it was made with.
    func formats(_ files: [FakeFile], writable: Bool = true) throws -> [any ImageFormat] {
        let leaf = writable ? try QCOW2Format.open(forWriting: files[0]) : try QCOW2Format.open(files[0])
        guard files.count > 1 else { return [leaf] }
        return [leaf, parentIsQCOW2 ? try QCOW2Format.open(files[1]) : RawFormat(byteCount: files[1].byteCount)]
    }

    /// The whole disk as a new engine reads it.
    func contents(_ leaf: [UInt8], _ parents: [FakeFile]) throws -> [UInt8] {
        let files = [FakeFile(leaf)] + parents
        let rig = try EngineRig(try formats(files, writable: false), files)
        var bytes: [UInt8] = []
        for start in stride(from: 0, to: sectors * 512, by: 65536) {
            bytes += try rig.read(UInt64(start), min(65536, sectors * 512 - start))
        }
        return bytes
    }
}

@Suite struct QCOW2EngineTests {
    @Test(arguments: ImageKind.all)
    func randomRequests(_ kind: ImageKind) throws {
        let files = try kind.files()
        let rig = try EngineRig(try kind.formats(files), files, seed: 1)
        let work = Workload(rig, parent: kind.parentStamps)
        for _ in 0..<250 {
            if rig.dice.below(3) > 0 { work.beginOne() }
            for _ in 0..<rig.dice.below(12) { _ = rig.step() }
        }
        try rig.settle()
        #expect(work.failures == 0)
        work.compare(
            try kind.contents(files[0].bytes, Array(files.dropFirst())),
            answeredBefore: .max - 1,
            "at the end"
        )
        try rig.close()
        let report = try QCOW2Format.check(files[0])
        #expect(report.isClean, "\(report.findings.prefix(5))")
        let folder = Folder()
        let status = try QEMU.check(files[0].bytes, in: folder, parent: files.dropFirst().first)
        #expect(status == 0, "\(QEMU.output(folder))")
    }

    /// What QEMU wrote, with a snapshot over it: we write on, its snapshot keeps what it had.
    @Test func snapshotsStayAsTheyWere() throws {
        let folder = Folder()
        let file = try QEMU.image(
            folder,
            "qemu-img create -f qcow2 -o cluster_size=4k a.qcow2 1M",
            "qemu-io -f qcow2 -c 'write -P 1 0 512k' a.qcow2",
            "qemu-img snapshot -c old a.qcow2"
        )
        let rig = try EngineRig([try QCOW2Format.open(forWriting: file)], [file])
        for sector in stride(from: 0, to: 1500, by: 37) { try rig.write(UInt64(sector) * 512, DiskModel.bytes(7)) }
        try rig.discard(256 << 10, 64 << 10)
        try rig.close()
        #expect(try rig.read(0, 512) == DiskModel.bytes(7))
        #expect(try rig.read(512, 512) == [UInt8](repeating: 1, count: 512))
        #expect(try QEMU.check(file.bytes, in: folder, name: "a.qcow2") == 0, "\(QEMU.output(folder))")
        #expect(
            QEMU.run(
                "qemu-img snapshot -a old a.qcow2 && qemu-io -f qcow2 -c 'read -P 1 0 512k' a.qcow2 | tee log; ! grep -q fail log",
                in: folder
            ) == 0
        )
    }

    /// The disk does not grow when the same clusters are written and discarded again and again.
    @Test func freedSpaceIsUsedAgain() throws {
        let kind = ImageKind.all[1]
        let files = try kind.files()
        let rig = try EngineRig(try kind.formats(files), files)
        for round in 0..<300 {
            let start = UInt64(round % 7) * 65536
            try rig.write(start, [UInt8](repeating: 1, count: 65536))
            try rig.discard(start, 65536)
            try rig.flush()
            try rig.settle()
        }
        // The claims of two runs, and what was written at one time.
        #expect(files[0].bytes.count < 3 << 20, "\(files[0].bytes.count) bytes")
        try rig.close()
        #expect(try QCOW2Format.check(files[0]).isClean)
    }

    /// The host's disk is full in the middle of allocations; then there is room again.
    @Test(arguments: [0, 3, 8])
    func noSpaceIsAnErrorAndNoMore(_ kindIndex: Int) throws {
        let kind = ImageKind.all[kindIndex]
        for room in [0, 1, 5, 17, 60] {
            let files = try kind.files()
            let rig = try EngineRig(try kind.formats(files), files, seed: UInt64(room))
            let work = Workload(rig, parent: kind.parentStamps)
            files[0].room = room
            for _ in 0..<40 {
                work.beginOne()
                for _ in 0..<rig.dice.below(20) { _ = rig.step() }
            }
            try rig.settle()
            files[0].room = .max
            let before = work.failures
            for _ in 0..<20 {
                work.beginOne()
                for _ in 0..<rig.dice.below(20) { _ = rig.step() }
            }
            try rig.settle()
            // What was refused while it was full may be told to one more request.
            #expect(work.failures <= before + 1)
            let report = try QCOW2Format.check(files[0])
            #expect(report.corruptions == 0, "\(report.findings.prefix(5))")
            work.compare(
                try kind.contents(files[0].bytes, Array(files.dropFirst())),
                answeredBefore: .max - 1,
                "room \(room)"
            )
        }
    }

    /// Every n-th write fails.
    @Test(arguments: [2, 7])
    func failingWritesLeaveAtMostLeaks(_ every: Int) throws {
        for kind in ImageKind.all {
            let files = try kind.files()
            let rig = try EngineRig(try kind.formats(files), files, seed: UInt64(every))
            let work = Workload(rig, parent: kind.parentStamps)
            files[0].failsEvery = every
            for _ in 0..<50 {
                work.beginOne()
                for _ in 0..<rig.dice.below(12) { _ = rig.step() }
            }
            try rig.settle()
            files[0].failsEvery = 0
            let report = try QCOW2Format.check(files[0])
            #expect(report.corruptions == 0, "\(kind.name): \(report.findings.prefix(5))")
            work.compare(
                try kind.contents(files[0].bytes, Array(files.dropFirst())),
                answeredBefore: .max - 1,
                kind.name
            )
        }
    }

    /// A hostile image's guest reads and writes all over it: errors, and an end.
    @Test func hostileTablesAreErrors() throws {
        let base = try ImageKind.all[3].options.draft()
        var dice = Dice(77)
        for _ in 0..<150 {
            let file = FakeFile(base)
            try file.write([UInt8](repeating: 0, count: 16384), at: file.byteCount)
            // An L1 entry to the L2 table behind it, and then noise in tables and refcounts.
            var bytes = file.bytes
            for _ in 0..<1 + dice.below(6) {
                let place =
                    [dice.below(3) * 16384, bytes.count - 16384 - 16, bytes.count - 16384].randomElement(using: &dice)
                    ?? 0
                let value: UInt64 =
                    [dice.next(), UInt64(dice.below(8)) * 16384 | 1 << 63, UInt64.max, 1 << 62 | dice.next() >> 2]
                    .randomElement(using: &dice) ?? 0
                let offset = place + dice.below(64) * 8
                if offset + 8 <= bytes.count, offset >= 128 { bytes.putBigEndian(value, at: offset) }
            }
            let hostile = FakeFile(bytes)
            guard let format = try? QCOW2Format.open(forWriting: hostile) else { continue }
            let rig = try EngineRig([format], [hostile], seed: dice.next())
            for _ in 0..<40 {
                let start = UInt64(rig.dice.below(2000)) * 512
                rig.begin(
                    [.read, .write, .discard, .flush].randomElement(using: &rig.dice) ?? .read,
                    start,
                    4096,
                    [UInt8](repeating: 1, count: 4096)
                )
                for _ in 0..<8 { _ = rig.step() }
            }
            try rig.settle()
            _ = try? QCOW2Format.check(hostile)
        }
    }
}
