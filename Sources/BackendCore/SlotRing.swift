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
    public var stride: Int { max(requestBytes, responseBytes) }
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
    public private(set) var inFlight: Int
    /// The slots that the last `publish` freed.
    public private(set) var published: [UInt16] = []

    private let format: SlotFormat
    private var ring: BackRing
    private var journal: QueueJournal
    /// By slot: taken, and not answered.
    private var isOpen: [Bool]
    /// Answered, not published.
    private var answered: [UInt16] = []
    private var misuse: Misuse?

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
        inFlight = left.count
        isOpen = Array(repeating: false, count: slotCount)
        for slot in left { isOpen[slot] = true }
        answered.reserveCapacity(slotCount)
        published.reserveCapacity(slotCount)
        self.format = format
        self.journal = journal
    }

    /// Slots of the journal: a request is known by the number of its slot, 0 ..< `slotCount`.
    public var slotCount: Int { journal.slotCount }

    /// Takes requests that wait, in ring order, each copied once into its slot; when this returns they are in the
    /// journal, and may be run and answered.
    /// - Parameter slots: theirs are appended.
    /// - Returns: how many.
    /// - Throws: the frontend broke the ring; nothing was taken.
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
            isOpen[slot] = true
            slots.append(UInt16(truncatingIfNeeded: slot))
        }
        // Before any of them can be answered: a response overwrites a slot of the ring.
        journal.commit(consumed: ring.requestConsumer)
        inFlight &+= count
        return count
    }

    /// The private copy of a request.
    public func request(_ slot: Int) -> Slot { journal.request(slot) }

    /// Puts the response to a request that was taken; the frontend sees it after `publish`.
    ///
    /// A second response, or one to a slot that was not taken, would be another request's: it traps in debug builds, and
    /// in release builds is not put; `take` and `lastLook` then close the device.
    /// - Returns: the response's ring index.
    @discardableResult
    public mutating func put(_ response: WireWords, for slot: Int) -> UInt32 {
        guard isOpen.indices.contains(slot), isOpen[slot] else {
            misuse = misuse ?? Misuse("slot \(slot) was answered without being taken")
            return ring.responseProducer
        }
        isOpen[slot] = false
        let index = ring.put(response, count: format.responseBytes)
        journal.markAnswered(slot, responseIndex: index)
        answered.append(UInt16(truncatingIfNeeded: slot))
        return index
    }

    /// Whether there are responses to publish.
    public var hasAnswers: Bool { !answered.isEmpty }

    /// Makes all responses put visible, then frees their slots, which are in `published` afterwards.
    /// - Returns: whether the frontend asked to be notified.
    public mutating func publish() -> Bool {
        published.removeAll(keepingCapacity: true)
        guard hasAnswers else { return false }
        let isAsked = ring.publish()
        swap(&answered, &published)
        for slot in published { journal.release(Int(slot)) }
        inFlight &-= published.count
        return isAsked
    }

    /// Asks for an event when there are requests, and looks once more.
    /// - Returns: requests that wait now; if any, take them instead of sleeping.
    public mutating func lastLook() throws(Breakdown) -> UInt32 {
        if let misuse { throw misuse.breakdown }
        do throws(RingFault) { return try ring.lastLook() } catch { throw .frontend("\(error)") }
    }

    /// `BackRing.responseEvent`: how far the frontend says it has seen the responses.
    public var responseEvent: UInt32 { ring.responseEvent }
    /// Where the next response goes.
    public var responseProducer: UInt32 { ring.responseProducer }

    private mutating func poll() throws(Breakdown) -> UInt32 {
        do throws(RingFault) { return try ring.poll() } catch { throw .frontend("\(error)") }
    }
}

/// A bug of ours that would have given the frontend a wrong answer.
struct Misuse: Sendable {
    private let text: String

    init(_ text: String) {
        assertionFailure(text)
        self.text = text
    }
    var breakdown: Breakdown { .host("a bug of xenback: \(text)") }
}
