// A ring with its journal: the order that lets a successor lose nothing, written down once.

public import SharedRing
public import XenWire

/// How a ring's slots are laid out.
public struct SlotFormat: Hashable, Sendable {
    /// Bytes of a request, in the frontend's ABI.
    public let requestBytes: Int
    /// Bytes of a response: 4, 8, 12 or 16.
    public let responseBytes: Int

    public init(requestBytes: Int, responseBytes: Int) {
        self.requestBytes = requestBytes
        self.responseBytes = responseBytes
    }

    /// Bytes from one slot to the next (ring.h, `union __name##_sring_entry`).
    @inlinable public var stride: Int { max(requestBytes, responseBytes) }
}

/// A ring whose requests are answered in any order (blkif, usbif), with the journal of what it took (`QueueJournal`).
///
/// A process can end between any two stores, so their order is the contract, and nothing outside can break it: what is
/// taken is in the journal before it can be answered; a slot is answered once; it is free when its response is visible,
/// and not before. Owned by one queue, used with one `inout` access per batch; allocates nothing after `init`.
public struct SlotRing: ~Copyable {
    /// What a predecessor took and did not answer, oldest first. They are in flight, and nobody else will name them.
    public let unanswered: [Int]
    /// Requests taken whose responses are not published.
    @inlinable public var inFlight: Int { pending }
    @usableFromInline var pending: Int
    /// The slots that the last `publish` freed.
    @inlinable public var published: [UInt16] { freed }
    @usableFromInline var freed: [UInt16] = []

    @usableFromInline let format: SlotFormat
    @usableFromInline var ring: BackRing
    @usableFromInline var journal: QueueJournal
    /// Answered, not published.
    @usableFromInline var answered: [UInt16] = []
    @usableFromInline var misuse: Misuse?

    /// - Parameters:
    ///   - journal: with a slot for each of the ring's; a fresh one, or that of a predecessor on the same ring.
    ///   - isTakeover: go on where the predecessor stopped.
    /// - Throws: if ring and journal do not add up: the frontend rewrote the ring.
    public init(
        _ pages: SharedPages,
        _ format: SlotFormat,
        journal: consuming QueueJournal,
        isTakeover: Bool
    ) throws(JournalFault) {
        let produced = isTakeover ? BackRing.publishedResponses(in: pages) : 0
        let left = isTakeover ? try journal.recover(published: produced) : []
        let slotCount = journal.slotCount
        ring = BackRing(pages: pages, stride: format.stride, consumed: journal.consumed, produced: produced)
        unanswered = left
        pending = left.count
        answered.reserveCapacity(slotCount)
        freed.reserveCapacity(slotCount)
        self.format = format
        self.journal = journal
    }

    /// Slots of the journal: a request is known by the number of its slot, 0 ..< `slotCount`.
    @inlinable public var slotCount: Int { journal.slotCount }

    /// Takes requests that wait, in ring order, each copied once into its slot; when this returns they are in the
    /// journal, and may be run and answered.
    /// - Parameter slots: theirs are appended.
    /// - Returns: how many.
    /// - Throws: the frontend broke the ring; nothing was taken.
    @inlinable
    @discardableResult
    public mutating func take(atMost limit: Int = .max, into slots: inout [UInt16]) throws(Breakdown) -> Int {
        if let misuse { throw misuse.breakdown }
        let count = min(Int(try poll()), journal.freeCount, limit)
        guard count > 0 else { return 0 }
        for _ in 0..<count {
            guard let slot = journal.claim() else { break }
            let index = ring.requestConsumer
            ring.takeNext(into: journal.request(slot), count: format.requestBytes)
            journal.markTaken(slot, ringIndex: index)
            slots.append(UInt16(truncatingIfNeeded: slot))
        }
        // Before any of them can be answered: a response overwrites a slot of the ring.
        journal.commit(consumed: ring.requestConsumer)
        pending &+= count
        return count
    }

    /// The private copy of a request.
    @inlinable public func request(_ slot: Int) -> Slot { journal.request(slot) }

    /// Puts the response to a request that was taken; the frontend sees it after `publish`.
    ///
    /// A second response, or one to a slot that was not taken, would be another request's: it traps in debug builds, and
    /// in release builds is not put; `take` and `lastLook` then close the device.
    /// - Returns: the response's ring index.
    @inlinable
    @discardableResult
    public mutating func put(_ response: WireWords, for slot: Int) -> UInt32 {
        guard journal.isTaken(slot) else { return misused(slot) }
        let index = ring.put(response, count: format.responseBytes)
        journal.markAnswered(slot, responseIndex: index)
        answered.append(UInt16(truncatingIfNeeded: slot))
        return index
    }

    /// Whether there are responses to publish.
    @inlinable public var hasAnswers: Bool { !answered.isEmpty }

    /// Makes all responses put visible, then frees their slots, which are in `published` afterwards.
    /// - Returns: whether the frontend asked to be notified.
    @inlinable
    public mutating func publish() -> Bool {
        freed.removeAll(keepingCapacity: true)
        guard hasAnswers else { return false }
        let isAsked = ring.publish()
        swap(&answered, &freed)
        for slot in freed { journal.release(Int(slot)) }
        pending &-= freed.count
        return isAsked
    }

    /// Asks for an event when there are requests, and looks once more.
    /// - Returns: requests that wait now; if any, take them instead of sleeping.
    @inlinable
    public mutating func lastLook() throws(Breakdown) -> UInt32 {
        if let misuse { throw misuse.breakdown }
        do throws(RingFault) { return try ring.lastLook() } catch { throw Breakdown(error) }
    }

    /// `BackRing.responseEvent`: how far the frontend says it has seen the responses.
    @inlinable public var responseEvent: UInt32 { ring.responseEvent }
    /// Where the next response goes.
    @inlinable public var responseProducer: UInt32 { ring.responseProducer }

    @inlinable
    mutating func poll() throws(Breakdown) -> UInt32 {
        do throws(RingFault) { return try ring.poll() } catch { throw Breakdown(error) }
    }

    @usableFromInline
    @inline(never)
    mutating func misused(_ slot: Int) -> UInt32 {
        misuse = misuse ?? Misuse("slot \(slot) was answered without being taken")
        return ring.responseProducer
    }
}

/// A bug of ours that would have given the frontend a wrong answer.
@usableFromInline
struct Misuse: Sendable {
    private let text: String

    init(_ text: String) {
        assertionFailure(text)
        self.text = text
    }
    @usableFromInline var breakdown: Breakdown { .host("a bug of xenback: \(text)") }
}

extension Breakdown {
    @usableFromInline
    @inline(never)
    init(_ fault: RingFault) { self = .frontend("\(fault)") }
}
