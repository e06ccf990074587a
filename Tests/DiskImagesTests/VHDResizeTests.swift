// Resizes that end at every write: the journal puts back what was there.

import Glibc
import HostIO
import ImageFormats
import SystemPackage
import Testing

@testable import DiskImages

/// A file that fails from some write on, as if the power had gone.
private final class DyingStorage: VHDStorage {
    let real: VHDFileStorage
    var left: Int

    init(_ path: String, after count: Int) throws {
        real = try VHDFileStorage(try OpenFile(path: path, flags: O_RDWR))
        left = count
    }

    var isDevice: Bool { false }
    var byteCount: UInt64 { real.byteCount }
    func read(at offset: UInt64, count: Int) throws(Errno) -> [UInt8] { try real.read(at: offset, count: count) }

    private func live() throws(Errno) {
        if left == 0 { throw .ioError }
        left -= 1
    }

    func write(_ bytes: [UInt8], at offset: UInt64) throws(Errno) {
        try live()
        try real.write(bytes, at: offset)
    }
    func flush() throws(Errno) { if left == 0 { throw .ioError } }
    func reserve(_ range: DiskRange) throws(Errno) {
        try live()
        try real.reserve(range)
    }
    func truncate(to byteCount: UInt64) throws(Errno) {
        try live()
        try real.truncate(to: byteCount)
    }
}

@Suite struct VHDResizeTests {
    let scratch = Scratch()

    private func contents(_ path: String) throws -> [UInt8] {
        let storage = try VHDFileStorage(try OpenFile(path: path, flags: O_RDONLY))
        return try storage.read(at: 0, count: Int(storage.byteCount))
    }

    /// The size, and all sectors.
    private func disk(_ path: String) throws -> [UInt8] {
        let file = try VHDFile.open(path)
        return try VHDChain(file).read(0..<file.sectorCount)
    }

    private func exists(_ path: String) -> Bool { unsafe access(path, F_OK) == 0 }

    private func image() throws -> String {
        let path = "\(scratch.path)/disk.img"
        _ = unsafe unlink(path)
        try VHDTools.make(path, try VHDFormat.draft(VHDDraftOptions(byteCount: 6 << 20)))
        let file = try VHDFile.open(path, [.writing])
        for block in 0..<3 as Range<UInt64> {
            try file.write([UInt8](repeating: UInt8(block + 1), count: 4096), at: block * 4096 + 7)
        }
        try file.finish()
        return path
    }

    @Test func revertsFromAnywhere() throws {
        let journal = "\(scratch.path)/answer"
        var hasEnded = false
        for count in 0..<200 where !hasEnded {
            let path = try image()
            let (before, sectors) = (try contents(path), try disk(path))
            let dying = try DyingStorage(path, after: count)
            do throws(VHDFailure) {
                try VHDResize.run(try VHDFile(path, dying, [.writing]), to: 60 << 30, journal: journal)
                hasEnded = true
                #expect(count > 10)
            } catch {
                guard exists(journal) else {
                    #expect(try contents(path) == before, "nothing had begun after \(count) writes")
                    continue
                }
                try VHDResize.revert(path, journal: journal)
                #expect(!exists(journal))
                // All was done but to say so: then it stays.
                if try VHDFile.open(path).byteCount == 60 << 30 {
                    #expect(try VHDTools.check(path, VHDCheckOptions()).problems.filter(\.fails).isEmpty)
                } else {
                    #expect(try disk(path) == sectors, "after \(count) writes")
                    #expect(try VHDTools.check(path, VHDCheckOptions()).problems.isEmpty, "after \(count) writes")
                }
            }
        }
        #expect(hasEnded)
        #expect(try VHDTools.check("\(scratch.path)/disk.img", VHDCheckOptions()).problems.filter(\.fails).isEmpty)
    }

    @Test func anImageInTheMiddleIsNotUsed() throws {
        let path = try image()
        let journal = "\(scratch.path)/answer"
        let dying = try DyingStorage(path, after: 8)
        #expect(throws: VHDFailure.self) {
            try VHDResize.run(try VHDFile(path, dying, [.writing]), to: 60 << 30, journal: journal)
        }
        let failure = #expect(throws: VHDFailure.self) { try VHDFile.open(path) }
        #expect(failure?.reason.contains("vhd-util revert") == true)
        // A journal of another image, and one that was cut.
        let other = "\(scratch.path)/disk.img.go"
        try VHDTools.make(other, try VHDFormat.draft(VHDDraftOptions(byteCount: 4 << 20)))
        #expect(throws: VHDFailure.self) { try VHDResize.revert(other, journal: journal) }
        let file = try VHDFileStorage(try OpenFile(path: journal, flags: O_RDWR))
        try file.truncate(to: file.byteCount - 512)
        #expect(throws: VHDFailure.self) { try VHDResize.revert(path, journal: journal) }
    }
}
