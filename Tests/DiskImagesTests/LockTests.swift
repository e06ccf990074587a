// Who may open an image beside whom, who is named, and that a killed writer's last I/O keeps its lock.

import CLinux
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

    /// The table's cells between guests once more, by the locks alone: two workers that XenStore tells nothing.
    @Test(arguments: SharingTests.table)
    func guestsByTheirLocks(_ access: ImageOptions.Access, _ other: OtherUse, _ isAllowed: Bool) throws {
        guard case .guest(let use) = other else { return }
        let path = try scratch.image(byteCount: 1 << 20)
        let first = try RawImage.open(path, ImageOptions(access: use, owner: "vbd/7/51712", guest: "one"))
        let second = failure(path, ImageOptions(access: access, owner: "vbd/8/51712", guest: "two"))
        #expect((second == nil) == isAllowed, "\(access) beside \(use): \(String(describing: second))")
        #expect(second?.isLocked ?? true)
        // Another disk of the first guest, whatever the two modes.
        #expect(failure(path, ImageOptions(access: access, owner: "vbd/9/51712", guest: "one")) == nil)
        withExtendedLifetime(first) {}
    }

    @Test func anImageMeasuredAgainKeepsItsLocks() throws {
        let path = try scratch.image(byteCount: 1 << 20)
        let again = try RawImage.open(path, writer).measuredAgain()
        withExtendedLifetime(again) { #expect(failure(path, .readOnly)?.isLocked == true) }
    }

    /// Whoever writes waits for his own predecessor, in every mode; two sharers of one image do not wait for each other.
    @Test(arguments: [ImageOptions.Access.exclusive, .shared])
    func aSuccessorWaitsInEveryMode(_ access: ImageOptions.Access) throws {
        let path = try scratch.image(byteCount: 1 << 20)
        var options = ImageOptions(access: access, owner: "vbd/7/51712", guest: "one")
        let first = try RawImage.open(path, options)
        options.isTakeover = true
        #expect(failure(path, options)?.isLocked == true)
        let other = ImageOptions(access: .shared, owner: "vbd/8/51712", guest: "two")
        #expect(failure(path, other) == nil)
        withExtendedLifetime(first) {}
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

    /// A child is killed with many direct writes in flight. Whoever gets the lock afterwards must never see the image
    /// change again.
    @Test(.timeLimit(.minutes(3)), arguments: [ImageOptions.Access.exclusive, .shared, .shared])
    func lockOfAKilledWriterGoesWithItsLastWrite(access: ImageOptions.Access) async throws {
        let options = ImageOptions(access: access, owner: "vbd/7/51712")
        let path = try scratch.image(byteCount: Storm.byteCount)
        try await withLoop { loop in
            // On the loop's thread: an exit test blocks one of the few threads of Swift's pool until its child is dead.
            let heir = Task(executorPreference: loop) { try await inherit(path, options, on: loop) }
            let isShared = access == .shared
            await #expect(processExitsWith: .signal(SIGKILL)) { [path = path as String, isShared = isShared as Bool] in
                let loop = try EventLoop(name: "storm")
                let options = ImageOptions(access: isShared ? .shared : .exclusive, owner: "vbd/7/51712")
                let image = try await opened(path, options, on: loop)
                let storm = try Storm(image: image, loop: loop)
                loop.perform { storm.begin() }
                while unsafe storm.completedCount < 2 * Storm.slots || Glibc.access(path + ".go", F_OK) != 0 {
                    usleep(100)
                }
                kill(getpid(), SIGKILL)
            }
            try await heir.value
        }
    }

    /// Waits until the image is locked, lets its holder die, takes the lock over and looks at the image twice.
    private nonisolated func inherit(_ path: String, _ options: ImageOptions, on loop: EventLoop) async throws {
        let start = ContinuousClock.now
        while failure(path, options)?.isLocked != true {
            await loop.sleep(for: .milliseconds(20))
            try #require(ContinuousClock.now - start < .seconds(60))
        }
        _ = try OpenFile(path: path + ".go", flags: O_CREAT | O_RDWR)
        let image = try await opened(path, options, on: loop)
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

/// Opens an image as soon as its lock is free.
private func opened(_ path: String, _ options: ImageOptions, on loop: EventLoop) async throws -> RawImage {
    let start = ContinuousClock.now
    while true {
        do throws(ImageFailure) { return try RawImage.open(path, options) } catch {
            guard error.isLocked, start.duration(to: .now) < .seconds(60) else { throw error }
        }
        await loop.sleep(for: .milliseconds(2))
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
