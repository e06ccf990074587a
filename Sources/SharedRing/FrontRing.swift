// The frontend's end of a request/response ring (public/io/ring.h): for our own frontends and for tests.

public import CRing
public import XenWire

/// A backend that answers more than it was asked (ring.h, `RING_RESPONSE_PROD_OVERFLOW`).
public struct ResponseProducerFault: Error, Equatable, Sendable {
    public let producer: UInt32
    public let consumed: UInt32
    public let size: UInt32

    @inlinable
    init(producer: UInt32, consumed: UInt32, size: UInt32) {
        self.producer = producer
        self.consumed = consumed
        self.size = size
    }
}

/// The frontend's end of one ring: puts requests, takes responses.
///
/// Layout and ownership are those of `BackRing`. Not thread-safe: one loop owns it.
@safe
public struct FrontRing: ~Copyable {
    public let pages: SharedPages
    // SAFETY: points into `pages`, which this struct keeps alive.
    @usableFromInline let base: UnsafeMutableRawPointer
    /// Slots in the ring, a power of two.
    public let size: UInt32
    /// Bytes from one slot to the next.
    public let stride: Int
    @usableFromInline var producer: UInt32
    @usableFromInline var consumer: UInt32
    @usableFromInline var responseSnapshot: UInt32

    /// Next request to put; visible to the backend after `push()`.
    @inlinable public var requestProducer: UInt32 { producer }
    /// Next response to take.
    @inlinable public var responseConsumer: UInt32 { consumer }

    /// Initialises the shared half (ring.h, `SHARED_RING_INIT`) and begins at `index`, which is 0 but in tests of
    /// the wrap at 2³².
    @inlinable
    public init(pages: SharedPages, stride: Int, startingAt index: UInt32 = 0) {
        let slots = BackRing.slots(pageCount: pages.pageCount, stride: stride)
        precondition(slots >= 1 && slots <= 65536)
        pages.zero()
        pages.storeRelease(index, at: RingLayout.requestProducer)
        pages.storeRelease(index &+ 1, at: RingLayout.requestEvent)
        pages.storeRelease(index, at: RingLayout.responseProducer)
        pages.storeRelease(index &+ 1, at: RingLayout.responseEvent)
        self.pages = pages
        unsafe base = pages.base
        size = UInt32(truncatingIfNeeded: slots)
        self.stride = stride
        producer = index
        consumer = index
        responseSnapshot = index
    }

    /// Requests that can be put before a response must be taken.
    @inlinable public var free: UInt32 { size &- (producer &- consumer) }

    /// Puts the `count` bytes of `request` into the next slot. Call only while `free` is not 0.
    @inlinable
    public mutating func put(request: Slot, count: Int) {
        precondition(free != 0, "the ring is full")
        precondition(count >= 0 && count <= stride && count <= request.byteCount)
        let index = Int(truncatingIfNeeded: producer & (size &- 1))
        // SAFETY: index < size, and 64 + size * stride fits the mapping (init).
        unsafe ring_copy(
            base.advanced(by: RingLayout.slots &+ index &* stride),
            request.base,
            UInt32(truncatingIfNeeded: count)
        )
        producer &+= 1
    }

    /// Puts a request of `count` bytes (2, 4, 8, 12 or 16) into the next slot. Call only while `free` is not 0.
    @inlinable
    public mutating func put(_ request: WireWords, count: Int) {
        precondition(free != 0, "the ring is full")
        precondition(count <= stride)
        let index = Int(truncatingIfNeeded: producer & (size &- 1))
        // SAFETY: as above.
        unsafe putSlot(request, to: base.advanced(by: RingLayout.slots &+ index &* stride), count: count)
        producer &+= 1
    }

    /// Makes all requests put so far visible.
    /// - Returns: whether the backend asked to be notified (ring.h, `RING_PUSH_REQUESTS_AND_CHECK_NOTIFY`).
    @inlinable
    public mutating func push() -> Bool {
        let old = unsafe ring_load_relaxed(base)
        unsafe ring_store_release(base, producer)
        ring_full_fence()
        let event = unsafe ring_load_relaxed(base.advanced(by: RingLayout.requestEvent))
        return (producer &- event) < (producer &- old)
    }

    /// Reads `rsp_prod` once and returns how many responses wait.
    /// - Throws: if there are more than requests; nothing was consumed.
    @inlinable
    public mutating func poll() throws(ResponseProducerFault) -> UInt32 {
        let answered = unsafe ring_load_acquire(base.advanced(by: RingLayout.responseProducer))
        guard answered &- consumer <= producer &- consumer else {
            throw ResponseProducerFault(producer: answered, consumed: consumer, size: size)
        }
        responseSnapshot = answered
        return waiting
    }

    /// Responses seen by the last `poll()` and not taken yet.
    @inlinable public var waiting: UInt32 { responseSnapshot &- consumer }

    /// Copies the next response, once, into `slot` and consumes it. Call only while `waiting` is not 0.
    @inlinable
    public mutating func takeNext(into slot: Slot, count: Int) {
        precondition(waiting != 0 && count >= 0 && count <= stride && count <= slot.byteCount)
        let index = Int(truncatingIfNeeded: consumer & (size &- 1))
        // SAFETY: as in put.
        unsafe copySlot(
            from: base.advanced(by: RingLayout.slots &+ index &* stride),
            to: slot.base,
            count: count
        )
        consumer &+= 1
    }

    /// Asks for an event at the next response, then looks once more (ring.h, `RING_FINAL_CHECK_FOR_RESPONSES`).
    /// - Returns: responses that came in between; if not 0, take them instead of sleeping.
    @inlinable
    public mutating func lastLook() throws(ResponseProducerFault) -> UInt32 {
        unsafe ring_store_relaxed(base.advanced(by: RingLayout.responseEvent), consumer &+ 1)
        ring_full_fence()
        return try poll()
    }
}
