// The journal, killed between any two of its stores.

internal import BackendCore
internal import SharedRing
internal import Synchronization
internal import SystemPackage
internal import Testing

/// What happens to journal and ring, one store after the other.
private enum Store: Sendable {
    /// Bytes of a request land in a slot; all that matters of them is which request they are.
    case request(slot: Int, number: UInt32)
    case word(offset: Int, value: UInt32)
    /// A response overwrites the ring's slot.
    case response(index: UInt32)
    case published(UInt32)
}

private final class Recorder: JournalTrace {
    private let stores = Mutex<[Store]>([])
    private let taking = Mutex<UInt32>(0)
    var all: [Store] { stores.withLock { $0 } }
    func add(_ store: Store) { stores.withLock { $0.append(store) } }
    func nextRequest(_ number: UInt32) { taking.withLock { $0 = number } }
    func stored(_ value: UInt32, at offset: Int) { add(.word(offset: offset, value: value)) }
    func storedRequest(slot: Int) { add(.request(slot: slot, number: taking.withLock { $0 })) }
}

private struct SeededGenerator: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}

@Suite struct JournalTests {
    private static let size = 8
    private let folder = FilePath("/tmp/xenback-journal-\(UInt64.random(in: 0 ... .max))")

    private func journal(_ name: String, trace: (any JournalTrace)? = nil) throws -> RequestJournal {
        try RequestJournal.create(
            at: folder.appending(name),
            identity: "test",
            layout: .slots(JournalTests.size, queues: 1),
            trace: trace
        )
    }

    /// A life of a queue: takes batches, answers out of order, publishes. Requests are numbered by their ring index.
    private func live(_ recorder: Recorder, start: UInt32, rounds: Int, seed: UInt64) throws {
        var generator = SeededGenerator(state: seed)
        let file = try journal("live", trace: recorder)
        var queue = file.queue(0)
        var (consumed, produced) = (start, start)
        queue.commit(consumed: start)
        recorder.add(.published(start))
        var pending: [Int] = []
        for _ in 0..<rounds {
            let room = JournalTests.size - Int(consumed &- produced)
            for _ in 0..<Int.random(in: 0...room, using: &generator) {
                let slot = try claim(&queue)
                recorder.nextRequest(consumed)
                queue.request(slot).set32(consumed, at: 0)
                queue.markTaken(slot, ringIndex: consumed)
                consumed &+= 1
                pending.append(slot)
            }
            queue.commit(consumed: consumed)
            pending.shuffle(using: &generator)
            var settled: [Int] = []
            for _ in 0..<Int.random(in: 0...pending.count, using: &generator) {
                let slot = pending.removeLast()
                recorder.add(.response(index: produced))
                queue.markAnswered(slot, responseIndex: produced)
                produced &+= 1
                settled.append(slot)
            }
            recorder.add(.published(produced))
            for slot in settled { queue.release(slot) }
        }
    }

    private func claim(_ queue: inout QueueJournal) throws -> Int {
        let slot = queue.claim()
        return try #require(slot)
    }

    private func fault(_ queue: inout QueueJournal, published: UInt32) -> JournalFault? {
        do throws(JournalFault) { _ = try queue.recover(published: published) } catch { return error }
        return nil
    }

    /// Rebuilds what the first `count` stores left behind, and recovers from it.
    private func check(_ stores: [Store], upTo count: Int, name: String) throws {
        let size = UInt32(JournalTests.size)
        let file = try journal(name)
        let descriptor = try FileDescriptor.open(file.path, .readWrite)
        defer {
            try? descriptor.close()
            RequestJournal.remove(at: file.path)
        }
        let pages = try PrivatePages(byteCount: Int(try descriptor.seek(offset: 0, from: .end)), file: descriptor)
        var published: UInt32 = 0
        var lastResponse: [UInt32: UInt32] = [:]
        for store in stores[..<count] {
            switch store {
            case .request(let slot, let number):
                pages.slot(at: 4096 + 128 + slot * 128, byteCount: 112).set32(number, at: 0)
            case .word(let offset, let value): pages.slot(at: offset, byteCount: 4).set32(value, at: 0)
            case .response(let index): lastResponse[index % size] = index
            case .published(let index): published = index
            }
        }
        var queue = try #require(
            try RequestJournal.reopen(at: file.path, identity: "test", layout: .slots(JournalTests.size, queues: 1))
        ).queue(0)
        let again = try queue.recover(published: published)
        // As many as the frontend waits for, none twice, oldest first, and each what was taken under that index.
        let (consumed, free) = (queue.consumed, queue.freeCount)
        #expect(UInt32(again.count) == consumed &- published)
        let numbers = again.map { queue.request($0).u32(0) }
        #expect(Set(numbers).count == numbers.count)
        for (older, newer) in zip(numbers, numbers.dropFirst()) { #expect(Int32(bitPattern: newer &- older) > 0) }
        for number in numbers { #expect(Int32(bitPattern: consumed &- number) > 0) }
        // What will be read from the ring again must not have been overwritten by a response put before the kill.
        for index in 0..<size {
            let next = consumed &+ index
            if let response = lastResponse[next % size] { #expect(Int32(bitPattern: response &- next) < 0) }
        }
        #expect(free == JournalTests.size - again.count)
    }

    @Test(arguments: [0, UInt32.max - 20], [1, 2, 3] as [UInt64])
    func recoversFromAKillBetweenAnyTwoStores(start: UInt32, seed: UInt64) throws {
        let recorder = Recorder()
        try live(recorder, start: start, rounds: 12, seed: seed)
        let stores = recorder.all
        #expect(stores.count > 100)
        // Two stores make the journal of a new queue: `consumed`, and the ring's own beginning.
        for count in 2...stores.count { try check(stores, upTo: count, name: "dead-\(count)") }
    }

    @Test func answersThatWerePublishedAreNotRunAgain() throws {
        var queue = try journal("published").queue(0)
        for index in 0..<3 as Range<UInt32> { queue.markTaken(try claim(&queue), ringIndex: index) }
        queue.commit(consumed: 3)
        queue.markAnswered(1, responseIndex: 0)
        queue.markAnswered(0, responseIndex: 1)
        let again = try queue.recover(published: 1)
        #expect(again == [0, 2])
    }

    @Test func aResponseIndexTheFrontendInventedIsRefused() throws {
        var queue = try journal("invented").queue(0)
        queue.markTaken(try claim(&queue), ringIndex: 0)
        queue.commit(consumed: 1)
        #expect(fault(&queue, published: 7) == .inconsistent(consumed: 1, published: 7, unanswered: 1))
    }

    @Test func aSlotInNoStateOfOursIsRefused() throws {
        let file = try journal("damaged")
        let descriptor = try FileDescriptor.open(file.path, .readWrite)
        defer { try? descriptor.close() }
        let pages = try PrivatePages(byteCount: 8192, file: descriptor)
        pages.slot(at: 4096 + 128 + 2 * 128 + 120, byteCount: 4).set32(9, at: 0)
        var queue = file.queue(0)
        #expect(fault(&queue, published: 0) == .damaged(slot: 2))
    }

    @Test func anotherConnectionsJournalIsNotOpened() throws {
        let path = try journal("identity").path
        func reopen(_ identity: String, _ queues: Int, _ slots: Int) throws -> Bool {
            try RequestJournal.reopen(at: path, identity: identity, layout: .slots(slots, queues: queues)) != nil
        }
        #expect(try reopen("test", 1, 8))
        #expect(try !reopen("tesT", 1, 8))
        #expect(try !reopen("test2", 1, 8))
        #expect(try !reopen("test", 2, 8))
        #expect(try !reopen("test", 1, 16))
        RequestJournal.remove(at: path)
        #expect(try !reopen("test", 1, 8))
    }
}
