// Marks: seen by another opener of the file, as the broker is after the worker's death.

import BackendCore
import SystemPackage
import Testing

#if canImport(Glibc)
    import Glibc
#endif

struct CrashMarksTests {
    private let path = FilePath("/tmp/xenback-marks-\(getpid())-\(UInt32.random(in: 0...UInt32.max))")

    @Test func aDeadWorkersMarksAreRead() throws {
        defer { _ = unsafe unlink(path.string) }
        let worker = try CrashMarks(path)
        let disk = try #require(worker.mark(for: "vbd3/51712"))
        let other = try #require(worker.mark(for: "vbd3/51728"))
        disk.begin(lane: 3)
        other.begin()
        other.end()
        other.progressed()

        let broker = try CrashMarks(path)
        let seen = broker.inUse
        #expect(seen.map(\.name) == ["vbd3/51712", "vbd3/51728"])
        #expect(seen.map(\.isBusy) == [true, false])
        #expect(seen.map(\.hasProgressed) == [false, true])
        seen[0].crashes = 2
        seen[1].isExcluded = true

        let successor = try CrashMarks(path)
        let again = try #require(successor.mark(for: "vbd3/51712"))
        again.reset()
        #expect(!again.isBusy && again.crashes == 2 && !again.isExcluded)
        #expect(try #require(successor.mark(for: "vbd3/51728")).isExcluded)
    }

    @Test func entriesAreReusedAndBounded() throws {
        defer { _ = unsafe unlink(path.string) }
        let marks = try CrashMarks(path)
        for index in 0..<CrashMarks.capacity { #expect(marks.mark(for: "vbd/\(index)") != nil) }
        #expect(marks.mark(for: "vbd/one-too-many") == nil)
        try #require(marks.mark(for: "vbd/7")).crashes = 1
        try #require(marks.mark(for: "vbd/7")).free()
        let reused = try #require(marks.mark(for: "vbd/one-too-many"))
        #expect(reused.crashes == 0)
        #expect(marks.mark(for: "") == nil)
        #expect(marks.mark(for: String(repeating: "x", count: 65)) == nil)
    }
}
