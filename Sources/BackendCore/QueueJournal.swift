// One queue's requests in the journal: taken, answered, free; and what a successor makes of them.

public import SharedRing

/// What a journal can hold that no life of ours leaves behind. The device is closed; nothing is run again.
public enum JournalFault: Error, Hashable, Sendable {
    /// The ring's `rsp_prod`, the consumed word and the unanswered slots do not add up: the frontend rewrote
    /// `rsp_prod`, or the file is not ours.
    case inconsistent(consumed: UInt32, published: UInt32, unanswered: Int)
    /// Two unanswered slots name one ring index, or a slot's state is none of ours.
    case damaged(slot: Int)
}

/// Hears of each store into the journal, in order: for tests that kill a life between any two of them.
package protocol JournalTrace: AnyObject, Sendable {
    func stored(_ value: UInt32, at offset: Int)
    func storedRequest(slot: Int)
}

/// One ring's slots in a `RequestJournal`. Owned by the queue that owns the ring.
///
/// The order of stores is the contract (a process can end between any two):
/// - take: request bytes, ring index, state `taken`; then, for a whole batch, `consumed`; only then may any response
///   be put, because a response overwrites the ring's slot.
/// - answer: response put into the ring, response index, state `answered`; then `rsp_prod` published; then `free`.
public struct QueueJournal: ~Copyable {
    /// Bytes before the first slot; the word at 0 is `consumed`.
    static let headerBytes = 128
    /// Bytes of the largest request of most rings (x86-64 and arm64 `blkif_request`).
    public static let requestBytes = 112
    /// Bytes per slot: those of the request, then ring index, response index and state, in whole cache lines.
    static func slotBytes(_ requestBytes: Int) -> Int { (requestBytes + 12 + 63) & ~63 }

    enum State { static let free: UInt32 = 0, taken: UInt32 = 1, answered: UInt32 = 2 }

    let pages: PrivatePages
    let base: Int
    /// Bytes of a slot's request.
    let requestBytes: Int
    private let slotBytes: Int
    let trace: (any JournalTrace)?
    /// Slots, as many as the ring has.
    public let slotCount: Int
    /// Requests taken so far, as the journal has it.
    public private(set) var consumed: UInt32
    private var free: [UInt16]

    // Where the words of a slot are.
    private var ringIndexField: Int { requestBytes }
    private var responseIndexField: Int { requestBytes &+ 4 }
    private var stateField: Int { requestBytes &+ 8 }

    static func byteCount(slots: Int, requestBytes: Int) -> Int { headerBytes + slots * slotBytes(requestBytes) }

    init(
        pages: PrivatePages,
        base: Int,
        slotCount: Int,
        requestBytes: Int = QueueJournal.requestBytes,
        trace: (any JournalTrace)?
    ) {
        precondition(slotCount > 0 && slotCount <= 4096)
        self.pages = pages
        self.base = base
        self.slotCount = slotCount
        self.requestBytes = requestBytes
        slotBytes = QueueJournal.slotBytes(requestBytes)
        self.trace = trace
        consumed = pages.slot(at: base, byteCount: 4).loadAcquire(at: 0)
        free = []
        free.reserveCapacity(slotCount)
        for index in (0..<slotCount).reversed() where word(index, stateField) == State.free {
            free.append(UInt16(truncatingIfNeeded: index))
        }
    }

    /// Slots that can be claimed.
    public var freeCount: Int { free.count }

    /// A free slot to copy a request into, or nil if all are in use. It stays free in the file until `markTaken`.
    public mutating func claim() -> Int? { free.popLast().map(Int.init) }

    /// The request bytes of a slot.
    public func request(_ slot: Int) -> Slot {
        pages.slot(at: offset(slot), byteCount: requestBytes)
    }

    /// The request in `slot` is complete and came from `ringIndex`.
    public func markTaken(_ slot: Int, ringIndex: UInt32) {
        trace?.storedRequest(slot: slot)
        store(ringIndex, at: offset(slot) + ringIndexField)
        store(State.taken, at: offset(slot) + stateField)
    }

    /// All requests before `index` are in the journal. Before this, none of them may be answered or run.
    public mutating func commit(consumed index: UInt32) {
        consumed = index
        store(index, at: base)
    }

    /// The response to `slot` lies in the ring at `responseIndex`, not yet published.
    public func markAnswered(_ slot: Int, responseIndex: UInt32) {
        store(responseIndex, at: offset(slot) + responseIndexField)
        store(State.answered, at: offset(slot) + stateField)
    }

    /// The response is published; the slot can be claimed again.
    public mutating func release(_ slot: Int) {
        store(State.free, at: offset(slot) + stateField)
        free.append(UInt16(truncatingIfNeeded: slot))
    }

    /// What a predecessor left: frees what is settled and names what must be run again, oldest first.
    ///
    /// May itself be ended at any store and run again by yet another successor.
    /// - Parameter published: the ring's `rsp_prod`.
    public mutating func recover(published: UInt32) throws(JournalFault) -> [Int] {
        var again: [(slot: Int, age: UInt32)] = []
        for slot in 0..<slotCount {
            let state = word(slot, stateField)
            if state == State.free { continue }
            guard state == State.taken || state == State.answered else { throw .damaged(slot: slot) }
            let age = consumed &- word(slot, ringIndexField)
            let unread = Int32(bitPattern: age) <= 0  // will be read from the ring again
            let settled = state == State.answered && Int32(bitPattern: word(slot, responseIndexField) &- published) < 0
            if unread || settled { release(slot) } else { again.append((slot, age)) }
        }
        guard UInt32(truncatingIfNeeded: again.count) == consumed &- published else {
            throw .inconsistent(consumed: consumed, published: published, unanswered: again.count)
        }
        again.sort { $0.age > $1.age }
        for (older, newer) in zip(again, again.dropFirst()) where older.age == newer.age {
            throw .damaged(slot: newer.slot)
        }
        return again.map(\.slot)
    }

    private func offset(_ slot: Int) -> Int {
        precondition(slot >= 0 && slot < slotCount)
        return base &+ QueueJournal.headerBytes &+ slot &* slotBytes
    }

    private func word(_ slot: Int, _ field: Int) -> UInt32 {
        pages.slot(at: offset(slot) &+ field, byteCount: 4).loadAcquire(at: 0)
    }

    private func store(_ value: UInt32, at offset: Int) {
        pages.slot(at: offset, byteCount: 4).storeRelease(value, at: 0)
        trace?.stored(value, at: offset)
    }
}
