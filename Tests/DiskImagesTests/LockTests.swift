// Who may open an image beside whom, who is named, and that a killed writer's last I/O keeps its lock.

import Glibc
import HostIO
import SharedRing
import Synchronization
import Testing

@testable import DiskImages

@Suite(.serialized) struct LockTests {
    let scratch = Scratch()

    @Test func secondWriterIsRefusedAndTheFirstIsNamed() throws {
        let path = try scratch.image(byteCount: 1 << 20)
        let image = try RawImage.open(path, writer)
        let failure = failure(path, .exclusive)
        guard case .locked(let holder?) = failure?.reason else {
            Issue.record("not refused: \(String(describing: failure))")
            return
        }
        #expect(holder.process == getpid())
        #expect(holder.device == "vbd/7/51712")
        #expect(failure?.message.hasPrefix("\(path): is in use by ") == true)
        #expect(failure?.message.hasSuffix("(pid \(getpid()), device vbd/7/51712)") == true)
        withExtendedLifetime(image) {}
    }

    @Test func whoMayShare() async throws {
        let path = try scratch.image(byteCount: 1 << 20)
        do {
            let first = try RawImage.open(path, reader)
            #expect(failure(path, .readOnly) == nil)
            #expect(failure(path, .exclusive)?.isLocked == true)
            #expect(failure(path, .shared) == nil)
            withExtendedLifetime(first) {}
        }
        do {
            let first = try RawImage.open(path, writer)
            #expect(failure(path, .readOnly)?.isLocked == true)
            #expect(failure(path, .shared) == nil)
            // An image measured again is the same open file, and holds on to the lock.
            let again = try first.measuredAgain()
            withExtendedLifetime(again) { #expect(failure(path, .readOnly)?.isLocked == true) }
        }
        // A process that is being started holds a copy of every open file until it executes its program, and tests
        // beside this one start some.
        try await withLoop { loop in _ = try await RawImage.open(path, writer, patience: .seconds(20), on: loop) }
    }

    @Test func otherProcessIsRefusedAndWeAreNamed() async throws {
        let path = try scratch.image(byteCount: 1 << 20)
        let image = try RawImage.open(path, writer)
        await #expect(processExitsWith: .success) { [path = path as String] in
            let failure = failure(path, .exclusive)
            guard case .locked(let holder?) = failure?.reason else { preconditionFailure("not refused") }
            precondition(holder.process == getppid() && holder.device == nil)
        }
        withExtendedLifetime(image) {}
    }

    @Test func domainOfAHolder() {
        #expect(LockHolder.domain(in: ["xenbackd", "--domain", "7"]) == 7)
        #expect(LockHolder.domain(in: ["xenbackd", "--domain=12", "--verbose"]) == 12)
        #expect(LockHolder.domain(in: ["qemu-system-i386", "-xen-domid", "3", "-S"]) == 3)
        #expect(LockHolder.domain(in: ["xenbackd", "--domain"]) == nil)
        #expect(LockHolder.domain(in: ["xenbackd", "--domain", "99999999"]) == nil)
        #expect(LockHolder.domain(in: []) == nil)
    }

    @Test func waitingEndsWithTheHoldersLife() async throws {
        let path = try scratch.image(byteCount: 1 << 20)
        try await withLoop { loop in
            let held = Mutex<RawImage?>(try RawImage.open(path, writer))
            let waiting = Task { try await RawImage.open(path, writer, patience: .seconds(30), on: loop) }
            try await Task.sleep(for: .milliseconds(50))
            held.withLock { $0 = nil }
            let image = try await waiting.value
            // A lock that nobody gives back is not waited for longer than asked, and its holder is named.
            let start = ContinuousClock.now
            do throws(ImageFailure) {
                _ = try await RawImage.open(path, writer, patience: .milliseconds(100), on: loop)
                Issue.record("not refused")
            } catch {
                guard case .locked(let holder?) = error.reason else { throw error }
                #expect(holder.process == getpid())
            }
            #expect(ContinuousClock.now - start >= .milliseconds(100))
            withExtendedLifetime(image) {}
        }
    }

    /// A child is killed with many direct writes in flight. Whoever gets the lock afterwards must never see the image
    /// change again.
    @Test(.timeLimit(.minutes(3)), arguments: 0..<3)
    func lockOfAKilledWriterGoesWithItsLastWrite(round: Int) async throws {
        let path = try scratch.image(byteCount: Storm.byteCount)
        try await withLoop { loop in
            // On the loop's thread: an exit test blocks one of the few threads of Swift's pool until its child is dead.
            let heir = Task(executorPreference: loop) { try await inherit(path, on: loop) }
            await #expect(processExitsWith: .signal(SIGKILL)) { [path = path as String] in
                let loop = try EventLoop(name: "storm")
                let image = try await RawImage.open(path, writer, patience: .seconds(30), on: loop)
                let storm = try Storm(image: image, loop: loop)
                loop.perform { storm.begin() }
                while unsafe storm.completedCount < 2 * Storm.slots || access(path + ".go", F_OK) != 0 { usleep(100) }
                kill(getpid(), SIGKILL)
            }
            try await heir.value
        }
    }

    /// Waits until the image is locked, lets its holder die, takes the lock over and looks at the image twice.
    private nonisolated func inherit(_ path: String, on loop: EventLoop) async throws {
        let start = ContinuousClock.now
        while failure(path, .readOnly)?.isLocked != true {
            await loop.sleep(for: .milliseconds(20))
            try #require(ContinuousClock.now - start < .seconds(60))
        }
        _ = try OpenFile(path: path + ".go", flags: O_CREAT | O_RDWR)
        let image = try await RawImage.open(path, writer, patience: .seconds(60), on: loop)
        let waiter = Waiter(loop: loop)
        let first = try await stamps(of: image, waiter)
        #expect(first.contains { $0 > 1 }, "the child has written")
        await loop.sleep(for: .milliseconds(500))
        let second = try await stamps(of: image, waiter)
        #expect(first == second, "something was written after the lock was free")
    }

    /// The first word of each page.
    private func stamps(of image: RawImage, _ waiter: Waiter) async throws -> [UInt32] {
        let pages = try PrivatePages(byteCount: Storm.byteCount)
        #expect(await waiter.read(image, at: 0, into: pages, count: Storm.byteCount) == Storm.byteCount)
        return stride(from: 0, to: Storm.byteCount, by: 4096).map { pages.slot(at: $0, byteCount: 4).u32(0) }
    }
}

/// Writes as many blocks as there are slots at once, again and again, each time with another stamp in each page.
final class Storm: CompletionTarget, @unchecked Sendable {
    static let slots = 128
    static let blockBytes = 1 << 18
    static let byteCount = slots * blockBytes

    private let image: RawImage
    private let loop: EventLoop
    private let pages: PrivatePages
    private var generations = [UInt32](repeating: 0, count: slots)
    private var id: TargetID?
    private let completions = Atomic(0)

    init(image: RawImage, loop: EventLoop) throws {
        self.image = image
        self.loop = loop
        pages = try PrivatePages(byteCount: Storm.byteCount)
    }

    var completedCount: Int { completions.load(ordering: .relaxed) }

    func begin() {
        id = loop.attach(self)
        for slot in 0..<Storm.slots { write(slot) }
    }

    func completed(_ batch: borrowing CompletionBatch) {
        for position in 0..<batch.count {
            precondition(batch[position].result == Storm.blockBytes)
            completions.add(1, ordering: .relaxed)
            write(Int(batch[position].slot))
        }
    }

    private func write(_ slot: Int) {
        guard let id else { return }
        generations[slot] += 1
        let offset = slot * Storm.blockBytes
        for page in stride(from: offset, to: offset + Storm.blockBytes, by: 4096) {
            pages.slot(at: page, byteCount: 4).set32(generations[slot], at: 0)
        }
        let runs = IORuns(offset: offset, byteCount: Storm.blockBytes)
        loop.write(image.file, at: UInt64(offset), from: pages, runs: runs, target: id, slot: UInt32(slot))
    }
}
