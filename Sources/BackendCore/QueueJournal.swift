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
    @inlinable static var headerBytes: Int { 128 }
    /// Bytes of the largest request of most rings (x86-64 and arm64 `blkif_request`).
    public static let requestBytes = 112
    /// Bytes per slot: those of the request, then ring index, response index and state, in whole cache lines.
    static func slotBytes(_ requestBytes: Int) -> Int { (requestBytes + 12 + 63) & ~63 }

    @usableFromInline
    enum State {
        @inlinable static var free: UInt32 { 0 }
        @inlinable static var taken: UInt32 { 1 }
        @inlinable static var answered: UInt32 { 2 }
    }

    @usableFromInline let pages: PrivatePages
    @usableFromInline let base: Int
    /// Bytes of a slot's request.
    @usableFromInline let requestBytes: Int
    @usableFromInline let slotBytes: Int
    private let trace: (any JournalTrace)?
    @usableFromInline let isTraced: Bool
    /// Slots, as many as the ring has.
    public let slotCount: Int
    /// Requests taken so far, as the journal has it.
    @inlinable public var consumed: UInt32 { taken }
    @usableFromInline var taken: UInt32
    @usableFromInline var free: [UInt16]

    // Where the words of a slot are.
    @inlinable var ringIndexField: Int { requestBytes }
    @inlinable var responseIndexField: Int { requestBytes &+ 4 }
    @inlinable var stateField: Int { requestBytes &+ 8 }

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
        isTraced = trace != nil
        taken = pages.slot(at: base, byteCount: 4).loadAcquire(at: 0)
        free = []
        free.reserveCapacity(slotCount)
        for index in (0..<slotCount).reversed() where word(index, stateField) == State.free {
            free.append(UInt16(truncatingIfNeeded: index))
        }
    }

    /// Slots that can be claimed.
    @inlinable public var freeCount: Int { free.count }

    /// A free slot to copy a request into, or nil if all are in use. It stays free in the file until `markTaken`.
    @inlinable
    public mutating func claim() -> Int? {
        guard let slot = free.popLast() else { return nil }
        return Int(slot)
    }

    /// The request bytes of a slot.
    @inlinable
    public func request(_ slot: Int) -> Slot {
        pages.slot(at: offset(slot), byteCount: requestBytes)
    }

    /// The request in `slot` is complete and came from `ringIndex`.
    @inlinable
    public func markTaken(_ slot: Int, ringIndex: UInt32) {
        if isTraced { traceRequest(slot) }
        store(ringIndex, slot, ringIndexField)
        store(State.taken, slot, stateField)
    }

    /// Whether `slot` is one of the journal's, holds a request and that has no response yet.
    @inlinable
    public func isTaken(_ slot: Int) -> Bool {
        slot >= 0 && slot < slotCount && word(slot, stateField) == State.taken
    }

    /// All requests before `index` are in the journal. Before this, none of them may be answered or run.
    @inlinable
    public mutating func commit(consumed index: UInt32) {
        taken = index
        store(index, at: base)
    }

    /// The response to `slot` lies in the ring at `responseIndex`, not yet published.
    @inlinable
    public func markAnswered(_ slot: Int, responseIndex: UInt32) {
        store(responseIndex, slot, responseIndexField)
        store(State.answered, slot, stateField)
    }

    /// The response is published; the slot can be claimed again.
    @inlinable
    public mutating func release(_ slot: Int) {
        store(State.free, slot, stateField)
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
        // An answer that was never published is put anew.
        for (slot, _) in again { store(State.taken, slot, stateField) }
        return again.map(\.slot)
    }

    @inlinable
    func offset(_ slot: Int) -> Int {
        precondition(slot >= 0 && slot < slotCount)
        return base &+ QueueJournal.headerBytes &+ slot &* slotBytes
    }

    @inlinable
    func word(_ slot: Int, _ field: Int) -> UInt32 {
        pages.slot(at: offset(slot) &+ field, byteCount: 4).loadAcquire(at: 0)
    }

    @inlinable
    func store(_ value: UInt32, _ slot: Int, _ field: Int) { store(value, at: offset(slot) &+ field) }

    @inlinable
    func store(_ value: UInt32, at offset: Int) {
        pages.slot(at: offset, byteCount: 4).storeRelease(value, at: 0)
        if isTraced { traceWord(value, at: offset) }
    }

    @usableFromInline
    @inline(never)
    func traceRequest(_ slot: Int) { trace?.storedRequest(slot: slot) }

    @usableFromInline
    @inline(never)
    func traceWord(_ value: UInt32, at offset: Int) { trace?.stored(value, at: offset) }
}
