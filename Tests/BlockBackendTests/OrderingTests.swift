// Which requests wait for which.

internal import Testing

@testable internal import BlockBackend

/// Macros cannot hold what cannot be copied.
private final class Book {
    private var book: OrderBook
    init(slots: Int) { book = OrderBook(slots: slots) }
    var parked: Int { book.parked }
    var isEmpty: Bool { book.isEmpty }
    func admit(_ slot: Int, _ extent: OrderedExtent) -> Bool { book.admit(slot, extent) }
    func finish(_ slot: Int) -> [UInt16] {
        var runnable: [UInt16] = []
        book.finish(slot, runnable: &runnable)
        return runnable
    }
}

@Suite struct OrderingTests {
    private func extent(_ kind: OrderedExtent.Kind, _ start: UInt64 = 0, _ end: UInt64 = 0) -> OrderedExtent {
        OrderedExtent(kind: kind, start: start, end: end)
    }

    @Test func overlapsKeepTheRingsOrder() {
        let early = extent(.write, 4096, 8192)
        #expect(extent(.read, 8191, 9000).mustWait(for: early))
        #expect(extent(.write, 0, 4097).mustWait(for: early))
        #expect(!extent(.read, 8192, 9000).mustWait(for: early))
        #expect(!extent(.write, 0, 4096).mustWait(for: early))
        #expect(extent(.write, 0, 512).mustWait(for: extent(.read, 0, 512)))
        #expect(!extent(.read, 0, 512).mustWait(for: extent(.read, 0, 512)))
    }

    @Test func flushWaitsForWritesOnlyAndNobodyForIt() {
        #expect(extent(.flush).mustWait(for: extent(.write, 0, 512)))
        #expect(!extent(.flush).mustWait(for: extent(.read, 0, 512)))
        #expect(!extent(.flush).mustWait(for: extent(.flush)))
        #expect(!extent(.write, 0, 512).mustWait(for: extent(.flush)))
        #expect(!extent(.read, 0, 512).mustWait(for: extent(.flush)))
    }

    @Test(arguments: [OrderedExtent.Kind.read, .write, .flush, .barrier])
    func aBarrierIsAWall(kind: OrderedExtent.Kind) {
        #expect(extent(.barrier).mustWait(for: extent(kind, 0, 512)))
        #expect(extent(kind, 0, 512).mustWait(for: extent(.barrier)))
    }

    @Test func parkedRequestsRunWhenTheLastBlockerEnds() {
        let book = Book(slots: 8)
        #expect(book.admit(0, extent(.write, 0, 4096)))
        #expect(book.admit(1, extent(.write, 4096, 8192)))
        #expect(!book.admit(2, extent(.read, 0, 8192)))
        #expect(!book.admit(3, extent(.write, 0, 512)))
        #expect(book.admit(4, extent(.read, 9000, 9512)))
        #expect(book.parked == 2)
        #expect(book.finish(1) == [])
        #expect(book.finish(0) == [2])
        #expect(book.finish(2) == [3])
        #expect(book.finish(3) == [])
        #expect(book.finish(4) == [])
        #expect(book.isEmpty && book.parked == 0)
    }

    /// Against a model that knows nothing of counters: a request may run when no earlier unfinished one stands in its way.
    @Test(arguments: [1, 2, 3, 4] as [UInt64])
    func agreesWithTheDefinition(seed: UInt64) {
        var generator = SeededGenerator(state: seed)
        let book = Book(slots: 32)
        var pending: [(slot: Int, extent: OrderedExtent, runs: Bool)] = []
        var free = Array(0..<32)
        for _ in 0..<4000 {
            if !free.isEmpty, Bool.random(using: &generator) {
                let slot = free.remove(at: Int.random(in: 0..<free.count, using: &generator))
                let kind = [OrderedExtent.Kind.read, .read, .write, .write, .flush, .barrier]
                    .randomElement(using: &generator)!
                let start = UInt64.random(in: 0..<16, using: &generator) * 512
                let value = extent(kind, start, start + 512 * UInt64.random(in: 1...4, using: &generator))
                let runs = !pending.contains { value.mustWait(for: $0.extent) }
                #expect(book.admit(slot, value) == runs)
                pending.append((slot, value, runs))
            } else if let index = pending.indices.filter({ pending[$0].runs }).randomElement(using: &generator) {
                let slot = pending.remove(at: index).slot
                free.append(slot)
                let runnable = book.finish(slot)
                var expected: [UInt16] = []
                for later in pending.indices where !pending[later].runs {
                    let blocked = pending[..<later].contains { pending[later].extent.mustWait(for: $0.extent) }
                    if !blocked {
                        pending[later].runs = true
                        expected.append(UInt16(pending[later].slot))
                    }
                }
                #expect(runnable == expected)
            }
        }
    }
}
