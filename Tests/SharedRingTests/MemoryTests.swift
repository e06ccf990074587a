// Private pages, shared pages and copy batches.

import SharedRing
import SystemPackage
import Testing
import XenWire

@Suite struct PrivateMemory {
    @Test func slotsReadWhatWasWritten() throws {
        let pages = try PrivatePages(byteCount: 100)
        #expect(pages.byteCount == 4096)
        let slot = pages.slot(at: 4000, byteCount: 96)
        slot.set64(0x1122_3344_5566_7788, at: 3)
        #expect(slot.u64(3) == 0x1122_3344_5566_7788)
        #expect(slot.u32(3) == 0x5566_7788)
        #expect(slot.u16(9) == 0x1122)
        #expect(slot.u8(10) == 0x11)
        slot.set32(1, at: 92)
        slot.set16(2, at: 90)
        slot.set8(3, at: 89)
        #expect((slot.u32(92), slot.u16(90), slot.u8(89)) == (1, 2, 3))
        pages.zero(at: 4000, count: 96)
        #expect((0..<96).allSatisfy { slot.u8($0) == 0 })
    }

    @Test func aFileKeepsWhatItsPagesHeld() throws {
        let path = "/tmp/xenback-private-pages-\(UInt64.random(in: 0 ... .max))"
        let file = try FileDescriptor.open(
            FilePath(path),
            .readWrite,
            options: [.create, .exclusiveCreate],
            permissions: .ownerReadWrite
        )
        defer { try? file.close() }
        try file.resize(to: 4096)
        do {
            let pages = try PrivatePages(byteCount: 4096, file: file)
            pages.slot(at: 8, byteCount: 4).storeRelease(0xCAFE, at: 0)
        }
        let again = try PrivatePages(byteCount: 4096, file: file)
        #expect(again.slot(at: 8, byteCount: 4).loadAcquire(at: 0) == 0xCAFE)
    }

    /// Offsets are ours: a wrong one is a bug, and ends the process instead of reading somebody else's bytes.
    @Test func anOffsetBeyondTheSlotTraps() async {
        await #expect(processExitsWith: .failure) {
            let slot = try PrivatePages(byteCount: 4096).slot(at: 0, byteCount: 112)
            _ = slot.u64(105)
        }
        await #expect(processExitsWith: .failure) {
            _ = try PrivatePages(byteCount: 4096).slot(at: 4000, byteCount: 97)
        }
    }
}

@Suite struct SharedMemory {
    @Test func copiesInAndOut() throws {
        let shared = makePages(2)
        let memory = try PrivatePages(byteCount: 8192)
        memory.write((0..<100).map { UInt8($0) }, at: 0)
        shared.copyIn(at: 5000, count: 100, from: memory, at: 0)
        shared.copyOut(at: 5000, count: 100, to: memory, at: 4096)
        #expect((0..<100).allSatisfy { memory.slot(at: 4096, byteCount: 100).u8($0) == UInt8($0) })
        shared.zero()
        #expect(shared.loadAcquire(at: 5000) == 0)
    }

    @Test func pagesAreReleasedWithTheLastReference() {
        final class Flag: @unchecked Sendable { var isSet = false }
        let flag = Flag()
        do {
            let memory = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 4096)
            // SAFETY: freed by the only release.
            nonisolated(unsafe) let base = unsafe memory
            var pages: SharedPages? = unsafe SharedPages(base: base, byteCount: 4096) {
                unsafe base.deallocate()
                flag.isSet = true
            }
            let ring = BackRing(pages: pages!, stride: 112)
            pages = nil
            #expect(!flag.isSet && ring.size == 32)
        }
        #expect(flag.isSet)
    }

    @Test func aBatchKeepsEachCopysStatus() throws {
        let memory = try PrivatePages(byteCount: 8192)
        var batch = GrantCopyBatch(capacity: 2)
        let first = batch.add(
            reference: GrantReference(7),
            pageOffset: 512,
            byteCount: 1024,
            intoGrant: true,
            pages: memory,
            privateOffset: 0
        )
        let second = batch.add(
            reference: GrantReference(8),
            pageOffset: 0,
            byteCount: 4096,
            intoGrant: false,
            pages: memory,
            privateOffset: 4096
        )
        let isFull = batch.isFull
        #expect(isFull)
        // An error until somebody says otherwise.
        batch.setStatus(.okay, of: second)
        let statuses = [batch.status(of: first), batch.status(of: second)]
        #expect(statuses == [.generalError, .okay])
        batch.clear()
        let count = batch.count
        #expect(count == 0)
    }
}

@Suite struct SharedFlagTests {
    /// Bits that the other end changes in the same word are left alone.
    @Test func bitsAreSetAndClearedOnTheirOwn() {
        let pages = makePages(1)
        pages.storeRelease(0b0110, at: 8)
        pages.setBits(0b0001, at: 8)
        #expect(pages.loadAcquire(at: 8) == 0b0111)
        pages.clearBits(0b0010, at: 8)
        #expect(pages.loadAcquire(at: 8) == 0b0101)
        #expect(pages.loadAcquire(at: 4) == 0 && pages.loadAcquire(at: 12) == 0)
    }
}
