// Death at every instant: the process killed, or the power gone, in the middle of random work.

import SystemPackage
import Testing

@testable import ImageFormats

@Suite struct QCOW2CrashTests {
    /// The work of one seed, on one kind of image.
    private func work(_ kind: ImageKind, _ seed: UInt64, requests: Int) throws -> (Workload, [FakeFile]) {
        let files = try kind.files()
        let rig = try EngineRig(try kind.formats(files), files, seed: seed)
        let work = Workload(rig, parent: kind.parentStamps)
        for _ in 0..<requests {
            work.beginOne()
            for _ in 0..<rig.dice.below(14) { _ = rig.step() }
        }
        try rig.settle()
        return (work, files)
    }

    /// Whatever was answered is there, after any completed operation; and QEMU agrees about the image.
    @Test(arguments: ImageKind.all)
    func killed(_ kind: ImageKind) throws {
        let (work, files) = try work(kind, 11, requests: 70)
        let folder = Folder()
        let points = files[0].events.count
        for point in stride(from: 1, through: points, by: max(1, points / 30)) {
            let left = files[0].killed(after: point)
            let report = try QCOW2Format.check(FakeFile(left))
            #expect(report.corruptions == 0, "point \(point): \(report.findings.prefix(3))")
            work.compare(try kind.contents(left, Array(files.dropFirst())), answeredBefore: point, "killed at \(point)")
            if (point / max(1, points / 30)) % 6 == 0 {
                let status = try QEMU.check(left, in: folder, parent: files.dropFirst().first)
                #expect(status == 0 || status == 3, "\(QEMU.output(folder))")
            }
        }
    }

    /// A successor goes on with what a killed process left, again and again; what each had claimed is a leak, and no more.
    @Test func successors() throws {
        let kind = ImageKind.all[8]
        var files = try kind.files()
        var stamps = kind.parentStamps
        for seed: UInt64 in 1...5 {
            let rig = try EngineRig(try kind.formats(files), files, seed: seed)
            let work = Workload(rig, parent: stamps)
            for _ in 0..<25 {
                work.beginOne()
                for _ in 0..<rig.dice.below(14) { _ = rig.step() }
            }
            // Killed with operations in flight.
            let contents = try kind.contents(files[0].bytes, Array(files.dropFirst()))
            work.compare(contents, answeredBefore: files[0].events.count, "seed \(seed)")
            stamps = (0..<kind.sectors).map { DiskModel.stamp(contents, sector: $0) ?? 0 }
            let report = try QCOW2Format.check(files[0])
            #expect(report.corruptions == 0, "\(report.findings.prefix(3))")
            files[0] = FakeFile(files[0].bytes)
        }
        #expect(files[0].bytes.count < 5 * (8 << 20), "\(files[0].bytes.count) bytes")
        #expect(try QCOW2Format.repair(files[0]).isClean)
    }

    /// After a power failure what was flushed is there, every sector is one that it was or was to be, and the check says
    /// at most leaks.
    @Test(arguments: ImageKind.all)
    func powerless(_ kind: ImageKind) throws {
        let (work, files) = try work(kind, 5, requests: 70)
        var dice = Dice(3)
        let folder = Folder()
        let points = files[0].events.count
        for point in stride(from: 1, through: points, by: max(1, points / 30)) {
            // Nothing of what was not flushed, all of it, or some sectors.
            let share = [0, 10, 3, 7][point % 4]
            let left = files[0].powerless(after: point) { dice.below(10) < share }
            let report = try QCOW2Format.check(FakeFile(left))
            #expect(report.corruptions == 0, "point \(point), \(share): \(report.findings.prefix(3))")
            let what = "power lost at \(point), \(share) of 10 kept"
            work.compare(
                try kind.contents(left, Array(files.dropFirst())),
                answeredBefore: work.durable(at: point),
                what
            )
            if (point / max(1, points / 30)) % 6 == 0 {
                let status = try QEMU.check(left, in: folder, parent: files.dropFirst().first)
                #expect(status == 0 || status == 3, "\(QEMU.output(folder))")
            }
        }
    }
}
