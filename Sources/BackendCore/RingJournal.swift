// One in-order ring's requests in the journal: private copies of what was taken, until it is answered.

public import SharedRing

/// The requests of a ring that is answered strictly in ring order. Owned by the queue that owns the ring.
///
/// What is unanswered is `rsp_prod ..< consumed`, so two numbers say all; the copies are needed because a response that
/// is put, but not yet published, has overwritten its request in the ring. The order of stores is the contract: request
/// bytes, for a whole batch; then `consumed`; only then may any response be put. A copy stays until its place is taken
/// by the request one ring further on, which the frontend puts after it has seen the response.
public struct RingJournal: ~Copyable {
    /// Bytes of a copy: the largest request of an in-order ring (16, the control ring's) fits.
    @inlinable public static var slotBytes: Int { 16 }
    /// Bytes before the first copy; the word at 0 is `consumed`.
    @inlinable static var headerBytes: Int { 64 }

    @usableFromInline let pages: PrivatePages
    @usableFromInline let base: Int
    @usableFromInline let mask: UInt32
    /// Requests taken so far, as the journal has it.
    @inlinable public var consumed: UInt32 { taken }
    @usableFromInline var taken: UInt32

    static func byteCount(slots: Int) -> Int { headerBytes + slots * slotBytes }

    init(pages: PrivatePages, base: Int, slotCount: Int) {
        precondition(slotCount > 0 && slotCount <= 4096 && slotCount & (slotCount - 1) == 0)
        self.pages = pages
        self.base = base
        mask = UInt32(slotCount - 1)
        taken = pages.slot(at: base, byteCount: 4).loadAcquire(at: 0)
    }

    /// The place of the request at ring index `index`.
    @inlinable
    public func slot(_ index: UInt32) -> Slot {
        let place = Int(truncatingIfNeeded: index & mask)
        return pages.slot(
            at: base &+ RingJournal.headerBytes &+ place &* RingJournal.slotBytes,
            byteCount: RingJournal.slotBytes
        )
    }

    /// All requests before `index` are copied. Before this, none of them may be answered.
    @inlinable
    public mutating func commit(consumed index: UInt32) {
        taken = index
        pages.slot(at: base, byteCount: 4).storeRelease(index, at: 0)
    }

    /// How many requests from `published` on a predecessor took and did not answer.
    /// - Parameter published: the ring's `rsp_prod`.
    /// - Throws: if they do not add up: the frontend rewrote `rsp_prod`, or the file is not ours.
    public func unanswered(published: UInt32) throws(JournalFault) -> UInt32 {
        let count = consumed &- published
        guard count <= mask &+ 1 else {
            throw .inconsistent(consumed: consumed, published: published, unanswered: Int(count))
        }
        return count
    }
}
