// A ring that is answered in ring order, with its journal: the same promise as `SlotRing`, with two numbers.

public import SharedRing
public import XenWire

/// A ring whose requests are answered strictly in ring order (netif), with the journal of what it took (`RingJournal`).
///
/// What is taken can be answered when it is committed, and not before; responses go out in the order of the requests.
/// Owned by one queue, used with one `inout` access per batch; allocates nothing.
public struct OrderedRing: ~Copyable {
    /// Requests that a predecessor took and did not answer: the next to be answered.
    public let unanswered: UInt32

    @usableFromInline let format: SlotFormat
    @usableFromInline var ring: BackRing
    @usableFromInline var journal: RingJournal
    @usableFromInline var misuse: Misuse?

    /// - Parameters:
    ///   - journal: with a slot for each of the ring's; a fresh one, or that of a predecessor on the same ring.
    ///   - isTakeover: go on where the predecessor stopped.
    /// - Throws: if ring and journal do not add up: the frontend rewrote the ring.
    public init(
        _ pages: SharedPages,
        _ format: SlotFormat,
        journal: consuming RingJournal,
        isTakeover: Bool
    ) throws(JournalFault) {
        let produced = isTakeover ? BackRing.publishedResponses(in: pages) : 0
        unanswered = isTakeover ? try journal.unanswered(published: produced) : 0
        ring = BackRing(pages: pages, stride: format.stride, consumed: journal.consumed, produced: produced)
        self.format = format
        self.journal = journal
    }

    /// Looks how many requests wait.
    /// - Throws: the frontend broke the ring; nothing was taken.
    @inlinable
    public mutating func poll() throws(Breakdown) -> UInt32 {
        if let misuse { throw misuse.breakdown }
        do throws(RingFault) { return try ring.poll() } catch { throw Breakdown(error) }
    }

    /// Requests seen by the last `poll` and not taken.
    @inlinable public var waiting: UInt32 { ring.waiting }
    /// Ring index of the next request to take.
    @inlinable public var requestConsumer: UInt32 { ring.requestConsumer }
    /// Ring index of the next request to answer.
    @inlinable public var responseProducer: UInt32 { ring.responseProducer }

    /// Takes the next request; only while `waiting` is not 0.
    /// - Returns: its private copy, which stays until the ring has gone round.
    @inlinable
    public mutating func take() -> Slot {
        let slot = journal.slot(ring.requestConsumer)
        ring.takeNext(into: slot, count: format.requestBytes)
        return slot
    }

    /// The private copy of the request at a ring index that was taken.
    @inlinable public func request(_ index: UInt32) -> Slot { journal.slot(index) }

    /// All that was taken so far is in the journal: it may be answered.
    @inlinable public mutating func commit() { journal.commit(consumed: ring.requestConsumer) }

    /// Puts the response to the request at `responseProducer`; the frontend sees it after `publish`.
    ///
    /// One to a request that is not committed traps in debug builds, and in release builds is not put; `poll` and
    /// `lastLook` then close the device.
    @inlinable
    public mutating func put(_ response: WireWords) {
        guard journal.consumed != ring.responseProducer else { return misused() }
        ring.put(response, count: format.responseBytes)
    }

    @usableFromInline
    @inline(never)
    mutating func misused() {
        misuse = misuse ?? Misuse("request \(ring.responseProducer) was answered before it was committed")
    }

    /// Makes all responses put visible.
    /// - Returns: whether the frontend asked to be notified.
    @inlinable public mutating func publish() -> Bool { ring.publish() }

    /// Asks for an event when `wanted` requests wait, and looks once more.
    /// - Returns: requests that wait now; if `wanted` or more, take them instead of sleeping.
    @inlinable
    public mutating func lastLook(for wanted: UInt32 = 1) throws(Breakdown) -> UInt32 {
        if let misuse { throw misuse.breakdown }
        do throws(RingFault) { return try ring.lastLook(for: wanted) } catch { throw Breakdown(error) }
    }
}
