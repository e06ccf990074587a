// Timers, polls, transfers and offloaded work: results, grouping, and what happens to those nobody waits for.

import CLinux
import Glibc
import HostIO
import SharedRing
import Synchronization
import TestSupport
import Testing

@Suite struct EventLoopOperationTests {
    @Test func timersFireInTheirOrder() async throws {
        try await withLoop { loop in
            let recorder = Recorder(loop: loop)
            await loop.on {
                let id = loop.attach(recorder)
                loop.after(.milliseconds(40), target: id, slot: 40)
                loop.after(.milliseconds(5), target: id, slot: 5)
                loop.after(.milliseconds(20), target: id, slot: 20)
                loop.after(.milliseconds(10), target: id, slot: 10)
                loop.cancelTimers(target: id, slot: 10)
            }
            try await recorder.wait(for: 3)
            #expect(recorder.all.map(\.slot) == [5, 20, 40])
            #expect(recorder.all.allSatisfy { $0.result == -ETIME })
            #expect(!recorder.state.withLock { $0.wasOffLoop })
        }
    }

    /// What is booked comes after all that is ready, and does not keep other things from coming.
    @Test func soonIsTheNextTurn() async throws {
        try await withLoop { loop in
            let event = OpenFile(adopting: eventfd(0, CInt(EFD_NONBLOCK)))
            let turns = Mutex(0)
            let recorder = Recorder(loop: loop) { recorder, run in
                for completion in run where completion.slot > 0 {
                    let turn = turns.withLock { turns in
                        turns += 1
                        return turns
                    }
                    let target = recorder.target.withLock { $0 }
                    if turn == 50 { _ = eventfd_write(event.descriptor, 1) }
                    if let target, turn < 100 || !recorder.all.contains(where: { $0.slot == 0 }) {
                        loop.soon(target: target, slot: 1)
                    }
                }
            }
            await loop.on {
                let id = loop.attach(recorder)
                recorder.target.withLock { $0 = id }
                loop.watchReadable(event.descriptor, target: id, slot: 0)
                loop.soon(target: id, slot: 1)
            }
            try await until { turns.withLock { $0 } >= 100 && recorder.all.contains { $0.slot == 0 } }
            #expect(recorder.all.allSatisfy { $0.slot == 0 || $0.result == 0 })
        }
    }

    @Test func pollTellsOfEveryWrite() async throws {
        try await withLoop { loop in
            let event = OpenFile(adopting: eventfd(0, CInt(EFD_NONBLOCK)))
            let recorder = Recorder(loop: loop) { _, _ in
                var value: eventfd_t = 0
                _ = unsafe eventfd_read(event.descriptor, &value)
            }
            let id = await loop.on {
                let id = loop.attach(recorder)
                loop.watchReadable(event.descriptor, target: id, slot: 9)
                return id
            }
            for round in 1...500 {
                #expect(eventfd_write(event.descriptor, 1) == 0)
                try await recorder.wait(for: round)
            }
            #expect(recorder.all.allSatisfy { $0.slot == 9 && $0.result & Int32(POLLIN) != 0 })
            await loop.on { loop.unwatch(event.descriptor, target: id, slot: 9) }
            let count = recorder.all.count
            #expect(eventfd_write(event.descriptor, 1) == 0)
            await loop.on {}
            #expect(recorder.all.count == count)
        }
    }

    @Test func aDescriptorIsWatchedForWriting() async throws {
        try await withLoop { loop in
            var pair: [CInt] = [-1, -1]
            #expect(unsafe socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &pair) == 0)
            let ours = OpenFile(adopting: pair[0])
            let theirs = OpenFile(adopting: pair[1])
            let junk = [UInt8](repeating: 1, count: 1 << 16)
            func fill() {
                while unsafe send(ours.descriptor, junk, junk.count, Int32(MSG_DONTWAIT)) > 0 {}
            }
            fill()
            let recorder = Recorder(loop: loop)
            let id = await loop.on {
                let id = loop.attach(recorder)
                loop.watch(ours.descriptor, for: UInt16(POLLOUT), target: id, slot: 4)
                return id
            }
            // Full: nothing to tell.
            #expect(recorder.all.isEmpty)
            func drain() {
                var buffer = [UInt8](repeating: 0, count: 1 << 16)
                while unsafe recv(theirs.descriptor, &buffer, buffer.count, Int32(MSG_DONTWAIT)) > 0 {}
            }
            for _ in 0..<3 {
                let before = recorder.all.count
                drain()
                try await until { recorder.all.count > before }
                fill()
            }
            #expect(recorder.all.allSatisfy { $0.slot == 4 && $0.result & Int32(POLLOUT) != 0 })
            // What was not asked for but always is told.
            shutdown(theirs.descriptor, Int32(SHUT_RDWR))
            try await until { recorder.all.contains { $0.result & Int32(POLLHUP) != 0 } }
            await loop.on { loop.unwatch(ours.descriptor, target: id, slot: 4) }
        }
    }

    @Test func pollIsArmedAgainWhenTheQueueOverflows() async throws {
        // 8000 ready pipes' worth of events at once overflow the completion queue, which ends multishot polls.
        try await withLoop(entries: 8) { loop in
            let events = (0..<2000).map { _ in OpenFile(adopting: eventfd(0, CInt(EFD_NONBLOCK))) }
            let recorder = Recorder(loop: loop) { _, run in
                for completion in run {
                    var value: eventfd_t = 0
                    _ = unsafe eventfd_read(events[Int(completion.slot)].descriptor, &value)
                }
            }
            await loop.on {
                let id = loop.attach(recorder)
                for (slot, event) in events.enumerated() {
                    loop.watchReadable(event.descriptor, target: id, slot: UInt32(slot))
                }
            }
            for round in 1...3 {
                await loop.on { for event in events { _ = eventfd_write(event.descriptor, 1) } }
                try await until {
                    var counts = [Int](repeating: 0, count: events.count)
                    for completion in recorder.all { counts[Int(completion.slot)] += 1 }
                    return counts.allSatisfy { $0 >= round }
                }
            }
        }
    }

    @Test func pollOfABadDescriptorFails() async throws {
        try await withLoop { loop in
            let recorder = Recorder(loop: loop)
            await loop.on { loop.watchReadable(9999, target: loop.attach(recorder), slot: 1) }
            try await recorder.wait(for: 1)
            #expect(recorder.all[0].result == -EBADF)
        }
    }

    @Test func transfersBeyondTheQueueAllComplete() async throws {
        try await withLoop(entries: 8) { loop in
            let file = try scratchFile()
            let count = 5000
            let pages = try PrivatePages(byteCount: count * 16)
            for index in 0..<count { pages.slot(at: index * 16, byteCount: 16).set32(UInt32(index), at: 4) }
            let recorder = Recorder(loop: loop)
            let id = await loop.on {
                let id = loop.attach(recorder)
                var runs = IORuns()
                for index in 0..<count {
                    runs.removeAll()
                    // Two pieces, the second half first, so that they cannot be joined.
                    runs.append(offset: index * 16 + 8, byteCount: 8)
                    runs.append(offset: index * 16, byteCount: 8)
                    loop.write(
                        file,
                        at: UInt64(index * 16),
                        from: pages,
                        runs: runs,
                        target: id,
                        slot: UInt32(index)
                    )
                }
                return id
            }
            try await recorder.wait(for: count)
            #expect(Set(recorder.all.map(\.slot)).count == count)
            #expect(recorder.all.allSatisfy { $0.result == 16 })
            #expect(recorder.runCount < count)

            let back = try PrivatePages(byteCount: count * 16)
            await loop.on {
                loop.synchronize(file, target: id, slot: 0)
                let runs = IORuns(offset: 0, byteCount: count * 16)
                loop.read(file, at: 0, into: back, runs: runs, target: id, slot: 1)
            }
            try await recorder.wait(for: count + 2)
            #expect(recorder.all.contains { $0.slot == 1 && $0.result == Int32(count * 16) })
            for index in 0..<count {
                #expect(back.slot(at: index * 16, byteCount: 16).u32(12) == UInt32(index))
            }
        }
    }

    @Test func eachTargetHearsOncePerTurn() async throws {
        try await withLoop { loop in
            let file = try scratchFile()
            let pages = try PrivatePages(byteCount: 4096)
            let recorders = [Recorder(loop: loop), Recorder(loop: loop)]
            await loop.on {
                let ids = recorders.map { loop.attach($0) }
                let runs = IORuns(offset: 0, byteCount: 512)
                for slot in UInt32(0)..<20 {
                    loop.write(file, at: 0, from: pages, runs: runs, target: ids[Int(slot % 2)], slot: slot)
                }
            }
            for recorder in recorders { try await recorder.wait(for: 10) }
            // Buffered writes complete while they are submitted, or a few of them on a kernel thread.
            for recorder in recorders { #expect(recorder.runCount <= 10) }
            #expect(recorders[0].all.allSatisfy { $0.slot % 2 == 0 })
            #expect(recorders[1].all.allSatisfy { $0.slot % 2 == 1 })
        }
    }

    @Test func readBeyondTheEndIsShort() async throws {
        try await withLoop { loop in
            let file = try scratchFile()
            #expect(ftruncate(file.descriptor, 1000) == 0)
            let pages = try PrivatePages(byteCount: 8192)
            let recorder = Recorder(loop: loop)
            await loop.on {
                let id = loop.attach(recorder)
                let runs = IORuns(offset: 0, byteCount: 4096)
                loop.read(file, at: 0, into: pages, runs: runs, target: id, slot: 0)
                loop.read(file, at: 4096, into: pages, runs: runs, target: id, slot: 1)
            }
            try await recorder.wait(for: 2)
            #expect(recorder.all.first { $0.slot == 0 }?.result == 1000)
            #expect(recorder.all.first { $0.slot == 1 }?.result == 0)
        }
    }

    @Test func holesArePunched() async throws {
        try await withLoop { loop in
            let file = try scratchFile()
            let pages = try PrivatePages(byteCount: 1 << 20)
            for page in 0..<256 { pages.slot(at: page * 4096, byteCount: 4096).set8(7, at: 0) }
            let recorder = Recorder(loop: loop)
            let id = await loop.on {
                let id = loop.attach(recorder)
                let runs = IORuns(offset: 0, byteCount: 1 << 20)
                loop.write(file, at: 0, from: pages, runs: runs, target: id, slot: 0)
                return id
            }
            try await recorder.wait(for: 1)
            await loop.on { loop.synchronize(file, target: id, slot: 1) }
            try await recorder.wait(for: 2)
            let before = allocatedBytes(file)
            await loop.on { loop.punchHole(file, offset: 4096, length: 1 << 19, target: id, slot: 2) }
            try await recorder.wait(for: 3)
            #expect(recorder.all.allSatisfy { $0.result >= 0 })
            #expect(before - allocatedBytes(file) >= 1 << 19)
        }
    }

    @Test func offloadedWorkCompletes() async throws {
        try await withLoop { loop in
            let recorder = Recorder(loop: loop)
            await loop.on {
                let id = loop.attach(recorder)
                for slot in UInt32(0)..<100 {
                    loop.offload({ loop.isOnLoop ? -1 : Int32(slot) }, target: id, slot: slot)
                }
            }
            try await recorder.wait(for: 100)
            #expect(recorder.all.allSatisfy { $0.result == Int32($0.slot) })
            #expect(!recorder.state.withLock { $0.wasOffLoop })
        }
    }
}

func allocatedBytes(_ file: OpenFile) -> Int {
    var status = stat()
    _ = unsafe fstat(file.descriptor, &status)
    return Int(status.st_blocks) * 512
}
