// Files that are mapped, in a file system without room: an error that says so, never SIGBUS at some later store.

import BackendCore
import SharedRing
import SystemPackage
import TestSupport
import Testing
import XenWire

@Suite struct FullFileSystemTests {
    private let layout = JournalLayout.slots(32, queues: 2)

    @Test func aJournalIsReservedWholeOrNotMade() throws {
        let small = try SmallFileSystem(kilobytes: 64)
        let path = small.path.appending("journal")
        try small.fill()
        #expect(throws: Errno.noSpace) { try RequestJournal.create(at: path, identity: "a", layout: layout) }
        #expect(throws: Errno.noSuchFileOrDirectory) { try FileDescriptor.open(path, .readOnly) }
        try small.makeRoom()
        let journal = try RequestJournal.create(at: path, identity: "a", layout: layout)
        // Whatever fills up the rest: each slot has its page already.
        try small.fill()
        for index in 0..<2 {
            var queue = journal.queue(index)
            for slot in 0..<32 { queue.request(slot).set32(7, at: 0) }
            _ = try queue.recover(published: 0)
        }
    }

    /// What a predecessor of another version left, with holes.
    @Test func aJournalWithHolesIsNotTakenForNone() throws {
        let small = try SmallFileSystem(kilobytes: 64)
        let path = small.path.appending("journal")
        let size: Int64
        do {
            _ = try RequestJournal.create(at: path, identity: "a", layout: layout)
            let file = try FileDescriptor.open(path, .readWrite)
            defer { try? file.close() }
            size = try file.seek(offset: 0, from: .end)
            // All but the header.
            try file.resize(to: 4096)
            try file.resize(to: size)
        }
        try small.fill()
        #expect(throws: Errno.noSpace) { try RequestJournal.reopen(at: path, identity: "a", layout: layout) }
        try small.makeRoom()
        #expect(try RequestJournal.reopen(at: path, identity: "a", layout: layout) != nil)
    }

    @Test func marksAreReservedWholeOrNotMade() throws {
        let small = try SmallFileSystem(kilobytes: 256)
        let path = small.path.appending("worker-1.marks")
        try small.fill()
        #expect(throws: Errno.noSpace) { try CrashMarks(path) }
        try small.makeRoom()
        let marks = try CrashMarks(path)
        try small.fill()
        for index in 0..<CrashMarks.capacity {
            try #require(marks.mark(for: "vbd/\(index)")).begin()
        }
        #expect(try CrashMarks(path).inUse.count == CrashMarks.capacity)
    }

    @Test func sharesAreReservedWholeOrNotMade() throws {
        let small = try SmallFileSystem(kilobytes: 256)
        let path = small.path.appending("grants")
        try small.fill()
        #expect(throws: Errno.noSpace) { try GrantShares(path) }
        try small.makeRoom()
        let shares = try GrantShares(path)
        try small.fill()
        let last = try #require(DomainID(DomainID.firstReserved - 1))
        shares.set(3, of: last)
        #expect(try GrantShares(path)[last] == 3)
    }
}
