// Detaching and shutting down with operations in flight: nothing is heard, lost or leaked.

import CLinux
import Glibc
import HostIO
import SharedRing
import Synchronization
import TestSupport
import Testing

/// A pipe whose reading end never becomes readable by itself.
private func silentPipe() -> (read: OpenFile, write: OpenFile) {
    var ends: [CInt] = [-1, -1]
    #expect(unsafe pipe(&ends) == 0)
    return (OpenFile(adopting: ends[0]), OpenFile(adopting: ends[1]))
}

private final class Pair: Sendable {
    let ids = Mutex<(TargetID, TargetID)?>(nil)
}

/// Knows whether an object is still alive.
private final class Canary: Sendable {
    struct Weak { weak var object: (any AnyObject & Sendable)? }
    let pages = Mutex(Weak())
    var isAlive: Bool { pages.withLock { $0.object != nil } }
}

@Suite struct EventLoopEndTests {
    @Test func detachedTargetHearsNothing() async throws {
        try await withLoop { loop in
            let file = try scratchFile()
            let pages = try PrivatePages(byteCount: 4096)
            let silent = Recorder(loop: loop)
            let other = Recorder(loop: loop)
            await loop.on {
                let id = loop.attach(silent)
                let runs = IORuns(offset: 0, byteCount: 4096)
                for slot in UInt32(0)..<50 {
                    loop.write(file, at: UInt64(slot) * 4096, from: pages, runs: runs, target: id, slot: slot)
                }
                loop.after(.milliseconds(1), target: id, slot: 99)
                loop.detach(id)
                // Gets the same place in the table: must not inherit anything.
                let next = loop.attach(other)
                #expect(next != id)
                loop.write(file, at: 0, from: pages, runs: runs, target: next, slot: 1000)
                loop.detach(id)
            }
            try await other.wait(for: 1)
            try await Task.sleep(for: .milliseconds(20))
            #expect(silent.all.isEmpty)
            #expect(other.all.map(\.slot) == [1000])
        }
    }

    @Test func targetsDetachEachOtherInACompletion() async throws {
        try await withLoop { loop in
            let pair = Pair()
            let recorders = (0..<2).map { own in
                Recorder(loop: loop) { recorder, _ in
                    if let other = pair.ids.withLock({ $0 }) { recorder.loop.detach(own == 0 ? other.1 : other.0) }
                }
            }
            await loop.on {
                let ids = (loop.attach(recorders[0]), loop.attach(recorders[1]))
                pair.ids.withLock { $0 = ids }
                // Both finish in one turn.
                loop.after(.zero, target: ids.0, slot: 0)
                loop.after(.zero, target: ids.1, slot: 1)
                usleep(2000)
            }
            try await until { recorders[0].runCount + recorders[1].runCount > 0 }
            try await Task.sleep(for: .milliseconds(20))
            #expect(recorders[0].all.count + recorders[1].all.count == 1)
        }
    }

    @Test func memoryOfADetachedTransferLives() async throws {
        try await withLoop { loop in
            let (read, write) = silentPipe()
            let recorder = Recorder(loop: loop)
            let canary = Canary()
            await loop.on {
                guard let pages = try? PrivatePages(byteCount: 4096) else { return }
                canary.pages.withLock { $0.object = pages }
                let id = loop.attach(recorder)
                let runs = IORuns(offset: 0, byteCount: 4096)
                loop.read(read, at: 0, into: pages, runs: runs, target: id, slot: 0)
                loop.detach(id)
            }
            try await Task.sleep(for: .milliseconds(10))
            #expect(canary.isAlive)
            #expect(unsafe Glibc.write(write.descriptor, "x", 1) == 1)
            try await until { !canary.isAlive }
            #expect(recorder.all.isEmpty)
        }
    }

    @Test func shutDownEndsPollsAndTimers() async throws {
        let loop = try EventLoop(name: "test")
        let (read, write) = silentPipe()
        let recorder = Recorder(loop: loop)
        await loop.on {
            let id = loop.attach(recorder)
            loop.watchReadable(read.descriptor, target: id, slot: 1)
            loop.after(.seconds(3600), target: id, slot: 2)
        }
        let sleeper = Task(executorPreference: loop) { await loop.sleep(for: .seconds(3600)) }
        try await Task.sleep(for: .milliseconds(10))
        loop.shutDown()
        await sleeper.value
        #expect(recorder.all.map(\.result) == [-ECANCELED, -ECANCELED])
        _ = write
        loop.shutDown()
    }

    @Test func shutDownWaitsForTransfers() async throws {
        let loop = try EventLoop(name: "test")
        let (read, write) = silentPipe()
        let recorder = Recorder(loop: loop)
        await loop.on {
            guard let pages = try? PrivatePages(byteCount: 4096) else { return }
            let runs = IORuns(offset: 0, byteCount: 4096)
            loop.read(read, at: 0, into: pages, runs: runs, target: loop.attach(recorder), slot: 0)
        }
        Task.detached {
            try await Task.sleep(for: .milliseconds(50))
            _ = unsafe Glibc.write(write.descriptor, "x", 1)
        }
        loop.shutDown()
        #expect(recorder.all.map(\.result) == [1])
    }

    @Test func nothingIsLeaked() async {
        await #expect(processExitsWith: .success) {
            func openDescriptors() -> Int { (0..<1024).count { fcntl($0, F_GETFD) >= 0 } }
            func cycle() async throws {
                let loop = try EventLoop(name: "test")
                let recorder = Recorder(loop: loop)
                await loop.on {
                    let id = loop.attach(recorder)
                    loop.after(.seconds(3600), target: id, slot: 2)
                    loop.offload({ 0 }, target: id, slot: 3)
                }
                loop.shutDown()
                loop.perform { fatalError("ran after the end") }
            }
            try await cycle()
            try await Task.sleep(for: .milliseconds(1))  // Dispatch opens its own.
            let before = openDescriptors()
            for _ in 0..<20 { try await cycle() }
            // A helper thread may hold its loop a moment longer.
            try await until { openDescriptors() == before }
        }
    }

    @Test func loopEndsItselfOnItsOwnThread() async throws {
        let canary = Canary()
        do {
            let loop = try EventLoop(name: "test")
            canary.pages.withLock { $0.object = loop }
            loop.perform { loop.shutDown() }
        }
        try await until { !canary.isAlive }
    }
}
