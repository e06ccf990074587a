// The backend's end of a request/response ring (public/io/ring.h), for a frontend that may lie.

public import CRing
public import XenWire

/// What a frontend can do wrong with the ring itself. Any of them closes the device; nothing else is affected.
public enum RingFault: Error, Equatable, Sendable {
    /// `req_prod` is further ahead of what we consumed than the ring has slots, or went backwards (XSA-39).
    case producerOutOfRange(producer: UInt32, consumed: UInt32, size: UInt32)
}

/// The backend's end of one ring: takes requests, puts responses.
///
/// Layout (ring.h, `DEFINE_RING_TYPES`): `req_prod` at 0, `req_event` at 4, `rsp_prod` at 8, `rsp_event` at 12,
/// slots from 64. Not thread-safe: one loop owns it. Take one `inout` access per batch.
@safe
public struct BackRing: ~Copyable {
    public let pages: SharedPages
    // SAFETY: points into `pages`, which this struct keeps alive.
    @usableFromInline let base: UnsafeMutableRawPointer
    /// Slots in the ring, a power of two.
    public let size: UInt32
    /// Bytes from one slot to the next: the larger of request and response, in the frontend's ABI.
    public let stride: Int
    /// Next request to take; private, never read back from the shared page.
    @inlinable public var requestConsumer: UInt32 { consumer }
    @usableFromInline var consumer: UInt32
    @usableFromInline var requestSnapshot: UInt32
    /// Next response to put; published by `publish()`.
    @inlinable public var responseProducer: UInt32 { producer }
    @usableFromInline var producer: UInt32

    /// - Parameters:
    ///   - stride: bytes per slot; the header and `size` slots must fit in `pages` (ours to guarantee).
    ///   - consumed: where to go on: 0 for a new ring, the journal's word after a takeover.
    ///   - produced: 0 for a new ring, `publishedResponses(in:)` after a takeover.
    @inlinable
    public init(pages: SharedPages, stride: Int, consumed: UInt32 = 0, produced: UInt32 = 0) {
        let slots = BackRing.slots(pageCount: pages.pageCount, stride: stride)
        precondition(slots >= 1 && slots <= 65536)
        self.pages = pages
        unsafe base = pages.base
        size = UInt32(truncatingIfNeeded: slots)
        self.stride = stride
        consumer = consumed
        requestSnapshot = consumed
        producer = produced
    }

    /// Slots of a ring over `pageCount` pages: the largest power of two that fits behind the 64-byte header
    /// (ring.h, `__RING_SIZE`).
    @inlinable
    public static func slots(pageCount: Int, stride: Int) -> Int {
        let fitting = (pageCount &* SharedPages.pageSize &- RingLayout.slots) / stride
        return fitting > 0 ? 1 << (Int.bitWidth &- 1 &- fitting.leadingZeroBitCount) : 0
    }

    /// `rsp_prod` as the frontend sees it: where a successor of a killed backend goes on.
    @inlinable
    public static func publishedResponses(in pages: SharedPages) -> UInt32 {
        pages.loadAcquire(at: RingLayout.responseProducer)
    }

    /// Reads `req_prod` once and returns how many requests wait, at most `size`.
    /// - Throws: `producerOutOfRange`; nothing was consumed.
    @inlinable
    public mutating func poll() throws(RingFault) -> UInt32 {
        let requested = unsafe ring_load_acquire(base)
        let waiting = requested &- consumer
        // A frontend can have at most `size` requests unanswered, taken or not (ring.h, RING_REQUEST_PROD_OVERFLOW).
        guard waiting <= size, requested &- producer <= size else {
            throw .producerOutOfRange(producer: requested, consumed: requestConsumer, size: size)
        }
        requestSnapshot = requested
        return waiting
    }

    /// Requests seen by the last `poll()` and not taken yet.
    @inlinable public var waiting: UInt32 { requestSnapshot &- requestConsumer }

    /// Copies the next request, once, into `slot` and consumes it. Call only while `waiting` is not 0.
    /// - Parameter count: bytes of the request in the frontend's ABI, at most `stride` and the slot's size.
    @inlinable
    public mutating func takeNext(into slot: Slot, count: Int) {
        precondition(waiting != 0 && count <= stride && count <= slot.byteCount && count >= 0)
        let index = Int(truncatingIfNeeded: requestConsumer & (size &- 1))
        // SAFETY: index < size and 64 + size * stride fits the mapping (init); slot has room (checked).
        let source = unsafe base.advanced(by: RingLayout.slots &+ index &* stride)
        unsafe copySlot(from: source, to: slot.base, count: count)
        consumer &+= 1
    }

    /// Puts a response of `count` bytes (4, 8, 12 or 16) into the next response slot.
    /// - Returns: the response's ring index, for the journal. It is visible to the frontend after `publish()`.
    @inlinable
    @discardableResult
    public mutating func put(_ response: WireWords, count: Int) -> UInt32 {
        precondition(count <= stride)
        precondition(consumer &- producer != 0, "a response without a request")
        let index = Int(truncatingIfNeeded: producer & (size &- 1))
        // SAFETY: as in takeNext.
        unsafe putSlot(response, to: base.advanced(by: RingLayout.slots &+ index &* stride), count: count)
        defer { producer &+= 1 }
        return producer
    }

    /// Makes all responses put so far visible.
    /// - Returns: whether the frontend asked to be notified (ring.h, `RING_PUSH_RESPONSES_AND_CHECK_NOTIFY`).
    @inlinable
    public mutating func publish() -> Bool {
        let old = unsafe ring_load_relaxed(base.advanced(by: RingLayout.responseProducer))
        unsafe ring_store_release(base.advanced(by: RingLayout.responseProducer), responseProducer)
        ring_full_fence()
        let event = unsafe ring_load_relaxed(base.advanced(by: RingLayout.responseEvent))
        return (responseProducer &- event) < (responseProducer &- old)
    }

    /// `rsp_event` as it is now: when a frontend has taken responses it asks for the event of the one behind the next
    /// (ring.h, `RING_FINAL_CHECK_FOR_RESPONSES`), so it has taken those before `rsp_event - 1`. That is only its
    /// claim.
    @inlinable
    public var responseEvent: UInt32 {
        unsafe ring_load_acquire(base.advanced(by: RingLayout.responseEvent))
    }

    /// Asks for an event once `wanted` requests wait, then looks once more (ring.h, `RING_FINAL_CHECK_FOR_REQUESTS`).
    ///
    /// A backend that needs several must say so: a frontend whose `req_prod` is past `req_event` already sends no
    /// event.
    /// - Returns: requests that wait now; if `wanted` or more, take them instead of sleeping.
    @inlinable
    public mutating func lastLook(for wanted: UInt32 = 1) throws(RingFault) -> UInt32 {
        unsafe ring_store_relaxed(base.advanced(by: RingLayout.requestEvent), requestConsumer &+ wanted)
        ring_full_fence()
        return try poll()
    }
}
