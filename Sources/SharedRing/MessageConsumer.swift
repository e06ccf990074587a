// The receiving end of a ring of messages (uring.h), for a producer that may lie.

public import CRing
public import XenWire

/// Takes messages of any size out of a payload ring.
///
/// Indices count bytes and run freely; only our private ones are ever used, and what the control page says is read once
/// and checked. Not thread-safe: one loop owns it. Take one `inout` access per batch.
@safe
public struct MessageConsumer<Layout: NetChannel2ControlLayout>: ~Copyable {
    public let control: SharedPages
    public let payload: SharedPages
    // SAFETY: both point into the pages above, which this struct keeps alive.
    @usableFromInline let words: UnsafeMutableRawPointer
    @usableFromInline let base: UnsafeMutableRawPointer
    /// The end that produces on this ring.
    @usableFromInline let ring: NetChannel2End
    /// Bytes of the ring, a power of two.
    public let ringBytes: UInt32
    /// Index of the next message.
    @inlinable public var consumed: UInt32 { consumer }
    @usableFromInline var consumer: UInt32
    /// `cons` as we last wrote it.
    @usableFromInline var released: UInt32
    @usableFromInline var snapshot: UInt32

    /// - Parameters:
    ///   - payload: 2ⁿ pages, n at most `NetChannel2Wire.maxRingOrder` (ours to check before they are mapped).
    ///   - ring: the end that produces on it: the other one.
    ///   - index: where to begin: 0 for a new ring.
    @inlinable
    public init(control: SharedPages, payload: SharedPages, producedBy ring: NetChannel2End, startingAt index: UInt32) {
        precondition(payload.pageCount & (payload.pageCount &- 1) == 0)
        precondition(payload.pageCount <= 1 << Int(NetChannel2Wire.maxRingOrder))
        self.control = control
        self.payload = payload
        unsafe words = control.base
        unsafe base = payload.base
        self.ring = ring
        ringBytes = UInt32(truncatingIfNeeded: payload.byteCount)
        consumer = index
        released = index
        snapshot = index
    }

    /// Reads `prod` once.
    /// - Returns: bytes of messages that wait.
    @inlinable
    public mutating func poll() throws(MessageRingFault) -> UInt32 {
        let produced = unsafe ring_load_acquire(words.advanced(by: Layout.producer(ring)))
        guard produced &- consumer <= ringBytes else {
            throw .producerOutOfRange(producer: produced, consumed: consumer, ringBytes: ringBytes)
        }
        // What was seen once cannot be taken back. (Bytes before `consumer` are caught above.)
        guard produced &- consumer >= snapshot &- consumer else {
            throw .producerOutOfRange(producer: produced, consumed: consumer, ringBytes: ringBytes)
        }
        guard produced & 7 == 0 else { throw .producerUnaligned(produced) }
        snapshot = produced
        return waiting
    }

    /// Bytes of messages that the last `poll()` saw and that were not taken.
    @inlinable public var waiting: UInt32 { snapshot &- consumer }

    /// The header of the next message, read once; call only while `waiting` is not 0. All of the message was produced.
    @inlinable
    public borrowing func next() throws(MessageRingFault) -> NetChannel2Header {
        precondition(waiting != 0)
        let offset = consumer & (ringBytes &- 1)
        // SAFETY: below `ringBytes`, and a multiple of 8 like every index.
        let header = NetChannel2Header(
            word: UInt32(littleEndian: unsafe ring_load_relaxed(base.advanced(by: Int(truncatingIfNeeded: offset))))
        )
        let size = UInt32(header.size)
        guard size >= 8, size & 7 == 0 else { throw .badSize(header) }
        guard size <= waiting else { throw .beyondProduced(header, available: waiting) }
        guard offset &+ size <= ringBytes else { throw .crossesEnd(header, offset: offset) }
        return header
    }

    /// Copies the message with this header, once, into `slot`, and consumes it. The header is the one that was checked:
    /// the ring's may have changed since.
    /// - Parameter slot: at least as large as the message.
    /// - Returns: the message in the slot.
    @inlinable
    public mutating func take(_ header: NetChannel2Header, into slot: Slot) -> Slot {
        let size = Int(header.size)
        precondition(size <= slot.byteCount && UInt32(header.size) <= waiting)
        let offset = Int(truncatingIfNeeded: consumer & (ringBytes &- 1))
        let headerBytes = NetChannel2Wire.headerBytes
        slot.set32(header.word, at: 0)
        // SAFETY: `next` found all of the message in the ring, and the slot has room for it (checked).
        unsafe ring_copy(
            slot.base.advanced(by: headerBytes),
            base.advanced(by: offset &+ headerBytes),
            UInt32(truncatingIfNeeded: size &- headerBytes)
        )
        consumer &+= UInt32(header.size)
        return unsafe Slot(base: slot.base, byteCount: size)
    }

    /// Consumes the message with this header without looking at it.
    @inlinable
    public mutating func skip(_ header: NetChannel2Header) {
        precondition(UInt32(header.size) <= waiting)
        consumer &+= UInt32(header.size)
    }

    /// Gives the producer the room of all messages taken so far.
    /// - Returns: whether it asked to be notified.
    @inlinable
    public mutating func release() -> Bool {
        let old = released
        if old == consumer { return false }
        unsafe ring_store_release(words.advanced(by: Layout.consumer(ring)), consumer)
        ring_full_fence()
        released = consumer
        let event = unsafe ring_load_relaxed(words.advanced(by: Layout.consumerEvent(ring)))
        return NetChannel2Index.mustNotify(old: old, new: consumer, event: event)
    }

    /// Asks for an event with the next message, then looks once more. Necessary before the first sleep, too: a control
    /// page of zeroes asks for nothing.
    /// - Returns: bytes that wait now; if not 0, take them instead of sleeping.
    @inlinable
    public mutating func lastLook() throws(MessageRingFault) -> UInt32 {
        unsafe ring_store_relaxed(words.advanced(by: Layout.producerEvent(ring)), consumer &+ 1)
        ring_full_fence()
        return try poll()
    }
}
