// The sending end of a ring of messages (uring.h), for a consumer that may lie.

public import CRing
public import XenWire

/// Which room of the ring a message may use.
public enum MessageRoom: Hashable, Sendable {
    /// All but what is reserved.
    case ordinary
    /// What is reserved, too: for messages that must never wait for ordinary ones.
    case reserved
}

/// Puts messages of any size into a payload ring. No message goes beyond the ring's end: a PAD fills what is left of it.
///
/// Indices and ownership as in `MessageConsumer`.
@safe
public struct MessageProducer<Layout: NetChannel2ControlLayout>: ~Copyable {
    public let control: SharedPages
    public let payload: SharedPages
    // SAFETY: both point into the pages above, which this struct keeps alive.
    @usableFromInline let words: UnsafeMutableRawPointer
    @usableFromInline let base: UnsafeMutableRawPointer
    /// Our own end.
    @usableFromInline let ring: NetChannel2End
    /// Bytes of the ring, a power of two.
    public let ringBytes: UInt32
    /// Index of the next message; visible to the other end after `publish()`.
    @inlinable public var produced: UInt32 { producer }
    @usableFromInline var producer: UInt32
    /// `prod` as we last wrote it.
    @usableFromInline var published: UInt32
    /// `cons` as it was last read.
    @usableFromInline var freed: UInt32
    /// Bytes that ordinary messages leave free.
    public private(set) var reserved: UInt32 = 0

    /// - Parameters:
    ///   - payload: 2ⁿ pages, n at most `NetChannel2Wire.maxRingOrder` (ours to check before they are mapped).
    ///   - ring: the end that produces on it: our own.
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
        producer = index
        published = index
        freed = index
    }

    /// The largest message that can be sent from any index: with the PAD before it, it may need twice its size.
    @inlinable public var maxMessage: UInt32 { ringBytes &>> 1 }

    /// Free bytes as far as we know.
    @inlinable var free: UInt32 { ringBytes &- (producer &- freed) }

    /// Keeps `byteCount` more bytes free of ordinary messages.
    /// - Returns: false if they are not free now; nothing is reserved then.
    public mutating func reserve(_ byteCount: UInt32) throws(MessageRingFault) -> Bool {
        let (wanted, isTooMuch) = reserved.addingReportingOverflow(byteCount)
        if isTooMuch || wanted > ringBytes { return false }
        if free < wanted { try look() }
        guard free >= wanted else { return false }
        reserved = wanted
        return true
    }

    /// Gives back what was reserved.
    public mutating func unreserve(_ byteCount: UInt32) {
        precondition(byteCount <= reserved)
        reserved &-= byteCount
    }

    /// Reads `cons` once.
    @inlinable
    mutating func look() throws(MessageRingFault) {
        let consumer = unsafe ring_load_acquire(words.advanced(by: Layout.consumer(ring)))
        guard consumer &- freed <= published &- freed else {
            throw .consumerOutOfRange(consumer: consumer, published: published, ringBytes: ringBytes)
        }
        guard consumer & 7 == 0 else { throw .consumerUnaligned(consumer) }
        freed = consumer
    }

    /// Whether a message of `byteCount` bytes can be put now. Reads `cons` only if that is necessary to know.
    /// - Parameter byteCount: a multiple of 8, at most `maxMessage`.
    @inlinable
    public mutating func hasRoom(
        for byteCount: UInt32,
        _ room: MessageRoom = .ordinary
    ) throws(MessageRingFault) -> Bool {
        precondition(byteCount & 7 == 0 && byteCount <= maxMessage)
        var needed = byteCount
        if NetChannel2Index.wraps(producer, byteCount, ringBytes: ringBytes) {
            needed &+= NetChannel2Index.padding(producer, ringBytes: ringBytes)
        }
        if room == .ordinary { needed &+= reserved }
        if free >= needed { return true }
        try look()
        return free >= needed
    }

    /// Whether `count` messages of 8 bytes can be put now, reserved room included.
    @inlinable
    public mutating func hasRoom(forShort count: UInt32) throws(MessageRingFault) -> Bool {
        // One of them may find the ring's end before it.
        let needed = UInt64(count) &* 8 &+ 8
        if UInt64(free) >= needed { return true }
        try look()
        return UInt64(free) >= needed
    }

    /// Where a message of `byteCount` bytes goes; a PAD fills what is left of the ring, if it is too little.
    @inlinable
    mutating func place(_ byteCount: UInt32) -> UnsafeMutableRawPointer {
        precondition(byteCount & 7 == 0 && byteCount <= maxMessage)
        if NetChannel2Index.wraps(producer, byteCount, ringBytes: ringBytes) {
            let size = NetChannel2Index.padding(producer, ringBytes: ringBytes)
            precondition(free >= size, "no room for a PAD")
            let header = NetChannel2Header(.pad, size: Int(truncatingIfNeeded: size))
            let offset = Int(truncatingIfNeeded: producer & (ringBytes &- 1))
            // SAFETY: inside the ring, as every index is.
            unsafe ring_put_4(base.advanced(by: offset), header.word.littleEndian)
            producer &+= size
        }
        precondition(free >= byteCount, "no room for a message")
        let offset = Int(truncatingIfNeeded: producer & (ringBytes &- 1))
        producer &+= byteCount
        return unsafe base.advanced(by: offset)
    }

    /// Puts a message that is all in `message`: call only if there is room (`hasRoom`).
    @inlinable
    public mutating func put(_ message: Slot) {
        // SAFETY: `place` gives as many bytes as the message has.
        let target = unsafe place(UInt32(truncatingIfNeeded: message.byteCount))
        unsafe ring_copy(target, message.base, UInt32(truncatingIfNeeded: message.byteCount))
    }

    /// Puts a message of 8 or 16 bytes.
    @inlinable
    public mutating func put(_ message: WireWords, count: Int = NetChannel2Wire.shortMessage) {
        // SAFETY: as above.
        let target = unsafe place(UInt32(truncatingIfNeeded: count))
        unsafe putSlot(message, to: target, count: count)
    }

    /// Puts a message in two parts: its head, then `count` bytes of `body`, then zeroes up to a multiple of 8.
    @inlinable
    public mutating func put(_ head: Slot, body: PrivatePages, at offset: Int, count: Int) {
        precondition(offset >= 0 && count >= 0 && count <= body.byteCount &- offset)
        let size = (head.byteCount &+ count &+ 7) & ~7
        // SAFETY: `place` gives `size` bytes; the body's range was checked above.
        let target = unsafe place(UInt32(truncatingIfNeeded: size))
        unsafe ring_put_8(target.advanced(by: size &- 8), 0)
        unsafe ring_copy(target, head.base, UInt32(truncatingIfNeeded: head.byteCount))
        unsafe ring_copy(
            target.advanced(by: head.byteCount),
            body.base.advanced(by: offset),
            UInt32(truncatingIfNeeded: count)
        )
    }

    /// Makes all messages put so far visible.
    /// - Returns: whether the other end asked to be notified.
    @inlinable
    public mutating func publish() -> Bool {
        let old = published
        if old == producer { return false }
        unsafe ring_store_release(words.advanced(by: Layout.producer(ring)), producer)
        ring_full_fence()
        published = producer
        let event = unsafe ring_load_relaxed(words.advanced(by: Layout.producerEvent(ring)))
        return NetChannel2Index.mustNotify(old: old, new: producer, event: event)
    }

    /// Asks for an event as soon as any room is freed, then looks once more. Never for "enough room": uring.h does not know
    /// whether the index may go back.
    /// - Returns: whether anything was freed meanwhile; if so, try again instead of sleeping.
    @inlinable
    public mutating func waitForRoom() throws(MessageRingFault) -> Bool {
        let seen = freed
        unsafe ring_store_relaxed(words.advanced(by: Layout.consumerEvent(ring)), seen &+ 1)
        ring_full_fence()
        try look()
        return freed != seen
    }
}
