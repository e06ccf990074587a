// The driver's end of a split virtqueue, at whose other end a thread of the kernel works (linux/virtio_ring.h).

internal import CRing

/// What the other end of a virtqueue did against the rules.
public enum SplitRingFault: Error, Hashable, Sendable, CustomStringConvertible {
    /// More buffers are used than it had.
    case jumped(used: UInt16, outstanding: Int)
    /// A buffer that it was not given, or whose turn it was not.
    case notPosted(id: UInt32, expected: UInt16)

    public var description: String {
        switch self {
        case .jumped(let used, let outstanding):
            "the used index went on by \(used), with \(outstanding) buffers outstanding"
        case .notPosted(let id, let expected): "buffer \(id) is used, and it is the turn of \(expected)"
        }
    }
}

/// Where the three parts of a split virtqueue lie in memory.
public struct SplitRingLayout: Hashable, Sendable {
    /// Descriptors; a power of two, at most 32768.
    public let size: Int
    /// Offset of the descriptors, a multiple of `VRING_DESC_ALIGN_SIZE`.
    public let descriptors: Int

    public init(size: Int, at offset: Int) {
        precondition(size > 0 && size <= 32768 && size & (size - 1) == 0 && offset & 15 == 0)
        self.size = size
        descriptors = offset
    }

    /// `struct vring_avail`, with `used_event` behind it.
    public var available: Int { descriptors + 16 * size }
    /// `struct vring_used`, with `avail_event` behind it. On a cache line of its own: the other end writes it.
    public var used: Int { (available + 6 + 2 * size + 63) & ~63 }
    /// Offset of the first byte behind it all.
    public var end: Int { (used + 6 + 8 * size + 63) & ~63 }

    var usedEvent: Int { available + 4 + 2 * size }
    var availableEvent: Int { used + 4 + 8 * size }
}

/// Buffers out to the other end, and back in the same order.
///
/// The other end is trusted with the memory that the descriptors name, and with nothing else: what it writes into the
/// used ring is checked before it becomes an index of ours. Descriptors are written, never read back. vhost returns the
/// buffers of a ring in the order in which it got them (drivers/vhost/net.c takes and returns `heads` in turn, with
/// `experimental_zcopytx`, too), so that it is enough to remember their number. Owned by one queue; allocates nothing.
@safe
public struct SplitRing: ~Copyable {
    public let layout: SplitRingLayout
    private let pages: PrivatePages
    private let usesEventIndex: Bool
    /// Index of the next entry of the available ring.
    private var next: UInt16 = 0
    /// What the other end was told of it.
    private var published: UInt16 = 0
    /// Index of the next entry of the used ring.
    private var taken: UInt16 = 0

    /// Starts an empty ring; its memory is zeroed.
    /// - Parameter usesEventIndex: `VIRTIO_RING_F_EVENT_IDX` was negotiated.
    public init(_ pages: PrivatePages, _ layout: SplitRingLayout, usesEventIndex: Bool) {
        self.pages = pages
        self.layout = layout
        self.usesEventIndex = usesEventIndex
        pages.zero(at: layout.descriptors, count: layout.end - layout.descriptors)
        silence()
    }

    private func word(_ offset: Int) -> UnsafeMutableRawPointer {
        unsafe pages.unsafeAddress(at: offset, count: 2)
    }

    private var mask: Int { layout.size &- 1 }

    /// Buffers at the other end, those among them that it has used and we have not looked at.
    public var outstanding: Int { Int(next &- taken) }

    /// Sets a descriptor, which no buffer at the other end has.
    /// - Parameters:
    ///   - address: as the other end's memory table has it.
    ///   - isWritable: the other end writes it (`VRING_DESC_F_WRITE`).
    ///   - next: the rest of the buffer (`VRING_DESC_F_NEXT`).
    public func setDescriptor(_ index: Int, address: UInt64, byteCount: Int, isWritable: Bool, next: Int? = nil) {
        precondition(index >= 0 && index < layout.size && byteCount > 0 && byteCount <= Int(UInt32.max))
        let slot = pages.slot(at: layout.descriptors &+ 16 &* index, byteCount: 16)
        let flags = (isWritable ? VRING_DESC_F_WRITE : 0) | (next == nil ? 0 : VRING_DESC_F_NEXT)
        slot.set64(address, at: 0)
        slot.set32(UInt32(truncatingIfNeeded: byteCount), at: 8)
        slot.set16(UInt16(truncatingIfNeeded: flags), at: 12)
        slot.set16(UInt16(truncatingIfNeeded: next ?? 0), at: 14)
    }

    /// Gives the buffer that begins with a descriptor to the other end, which sees it after `publish`.
    public mutating func add(head: Int) {
        precondition(outstanding < layout.size && head >= 0 && head < layout.size)
        let place = layout.available &+ 4 &+ 2 &* (Int(next) & mask)
        // SAFETY: a word of the available ring, inside the pages that this ring holds.
        unsafe ring_store_relaxed_16(word(place), UInt16(truncatingIfNeeded: head))
        next &+= 1
    }

    /// Makes all buffers that were added visible.
    /// - Returns: whether the other end asked to be kicked.
    public mutating func publish() -> Bool {
        let (old, new) = (published, next)
        if old == new { return false }
        published = new
        // SAFETY: the words of the ring's header and its last one, inside the pages that this ring holds.
        unsafe ring_store_release_16(word(layout.available &+ 2), new)
        ring_full_fence()
        guard usesEventIndex else {
            return unsafe ring_load_relaxed_16(word(layout.used)) & UInt16(VRING_USED_F_NO_NOTIFY) == 0
        }
        return unsafe vring_need_event(ring_load_relaxed_16(word(layout.availableEvent)), new, old) != 0
    }

    /// Whether the other end has seen all buffers that it was given, and asks for more.
    public var wantsMore: Bool {
        // SAFETY: as in `publish`.
        guard usesEventIndex else {
            return unsafe ring_load_relaxed_16(word(layout.used)) & UInt16(VRING_USED_F_NO_NOTIFY) == 0
        }
        return unsafe ring_load_relaxed_16(word(layout.availableEvent)) == published
    }

    /// Buffers that the other end has used and that were not taken yet.
    public func usedCount() throws(SplitRingFault) -> Int {
        // SAFETY: a word of the used ring's header, inside the pages that this ring holds.
        let count = unsafe ring_load_acquire_16(word(layout.used &+ 2)) &- taken
        guard count <= published &- taken else { throw .jumped(used: count, outstanding: outstanding) }
        return Int(count)
    }

    /// Bytes that the other end wrote into a used buffer. `usedCount` has counted it; the number is the other end's.
    /// - Parameters:
    ///   - index: 0 is the next to be taken.
    ///   - head: the descriptor that the buffer begins with.
    public func usedBytes(_ index: Int, head: Int) throws(SplitRingFault) -> UInt32 {
        precondition(index >= 0 && index < outstanding)
        let place = layout.used &+ 4 &+ 8 &* ((Int(taken) &+ index) & mask)
        // SAFETY: an entry of the used ring, inside the pages that this ring holds; each word is read once.
        let entry = unsafe pages.unsafeAddress(at: place, count: 8)
        let id = unsafe ring_load_relaxed(entry)
        guard id == UInt32(truncatingIfNeeded: head) else {
            throw .notPosted(id: id, expected: UInt16(truncatingIfNeeded: head))
        }
        return unsafe ring_load_relaxed(entry + 4)
    }

    /// Takes used buffers back.
    public mutating func take(_ count: Int) {
        precondition(count >= 0 && count <= Int(published &- taken))
        taken &+= UInt16(truncatingIfNeeded: count)
    }

    /// Asks for no call, for as long as we look without one.
    public func silence() {
        // With an event index the other end calls once for each index that it was asked to.
        // SAFETY: a word of the available ring's header, inside the pages that this ring holds.
        if !usesEventIndex { unsafe ring_store_relaxed_16(word(layout.available), UInt16(VRING_AVAIL_F_NO_INTERRUPT)) }
    }

    /// Asks for a call when `count` (at least 1, at most those outstanding) more buffers are used, and looks once more.
    /// - Returns: how many buffers are used now; if `count` or more, there will be no call.
    public func lastLook(for count: Int) throws(SplitRingFault) -> Int {
        // SAFETY: words of the available ring, inside the pages that this ring holds.
        if usesEventIndex {
            let event = taken &+ UInt16(truncatingIfNeeded: max(count, 1) &- 1)
            unsafe ring_store_relaxed_16(word(layout.usedEvent), event)
        } else {
            unsafe ring_store_relaxed_16(word(layout.available), 0)
        }
        ring_full_fence()
        return try usedCount()
    }
}
