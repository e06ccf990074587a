// The device's end of a split virtqueue: what a kernel's vhost does, for its double.

internal import CRing

/// Takes buffers that the driver's end gives, and returns them used.
///
/// It believes what it reads, as far as that cannot lead it out of the ring: its user checks the addresses.
@safe
public struct SplitRingServer: ~Copyable {
    /// One descriptor of a buffer.
    public struct Piece: Hashable, Sendable {
        public var address: UInt64
        public var byteCount: Int
        public var isWritable: Bool

        public init(address: UInt64, byteCount: Int, isWritable: Bool) {
            self.address = address
            self.byteCount = byteCount
            self.isWritable = isWritable
        }
    }

    // SAFETY: the three parts of a ring of `size` descriptors, which whoever made this keeps mapped.
    private let descriptors: UnsafeMutableRawPointer
    private let available: UnsafeMutableRawPointer
    private let used: UnsafeMutableRawPointer
    private let size: Int
    private let usesEventIndex: Bool
    private var taken: UInt16 = 0
    /// The driver's index as it was read last: it is read again when no buffer is left (drivers/vhost/vhost.c,
    /// `avail_idx`).
    private var seen: UInt16 = 0
    private var put: UInt16 = 0
    private var announced: UInt16 = 0

    @unsafe
    public init(
        descriptors: UnsafeMutableRawPointer,
        available: UnsafeMutableRawPointer,
        used: UnsafeMutableRawPointer,
        size: Int,
        usesEventIndex: Bool
    ) {
        unsafe self.descriptors = descriptors
        unsafe self.available = available
        unsafe self.used = used
        self.size = size
        self.usesEventIndex = usesEventIndex
    }

    /// Buffers that were given and not taken.
    public var waiting: Int { unsafe Int(ring_load_acquire_16(available + 2) &- taken) }

    /// Takes a buffer; nil if none waits.
    public mutating func take() -> (head: UInt16, pieces: [Piece])? {
        if taken == seen {
            seen = unsafe ring_load_acquire_16(available + 2)
            if taken == seen { return nil }
        }
        let head = unsafe ring_load_relaxed_16(available + 4 + 2 * (Int(taken) & (size - 1)))
        taken &+= 1
        var pieces: [Piece] = []
        var index = Int(head)
        while pieces.count < size, index < size {
            let entry = unsafe descriptors + 16 * index
            let flags = unsafe ring_load_relaxed_16(entry + 12)
            let byteCount = unsafe Int(ring_load_relaxed(entry + 8))
            let low = unsafe UInt64(ring_load_relaxed(entry))
            let high = unsafe UInt64(ring_load_relaxed(entry + 4))
            let isWritable = flags & UInt16(VRING_DESC_F_WRITE) != 0
            pieces.append(Piece(address: high << 32 | low, byteCount: byteCount, isWritable: isWritable))
            if flags & UInt16(VRING_DESC_F_NEXT) == 0 { break }
            index = unsafe Int(ring_load_relaxed_16(entry + 14))
        }
        return (head, pieces)
    }

    /// Gives the last `count` buffers taken back to the ring, untouched.
    public mutating func untake(_ count: Int) { taken &-= UInt16(truncatingIfNeeded: count) }

    /// Returns a buffer; the driver sees it after `announce`.
    public mutating func put(head: UInt32, byteCount: UInt32) {
        let entry = unsafe used + 4 + 8 * (Int(put) & (size - 1))
        unsafe ring_store_relaxed(entry, head)
        unsafe ring_store_relaxed(entry + 4, byteCount)
        put &+= 1
    }

    /// Makes returned buffers visible.
    /// - Parameter lie: how much further than that the index goes.
    /// - Returns: whether the driver asked to be called.
    public mutating func announce(lie: UInt16 = 0) -> Bool {
        let old = announced
        put &+= lie
        announced = put
        if old == put { return false }
        unsafe ring_store_release_16(used + 2, put)
        ring_full_fence()
        guard usesEventIndex else {
            return unsafe ring_load_relaxed_16(available) & UInt16(VRING_AVAIL_F_NO_INTERRUPT) == 0
        }
        return unsafe vring_need_event(ring_load_relaxed_16(available + 4 + 2 * size), put, old) != 0
    }

    /// Asks to be kicked for the next buffer beyond those that were seen, and looks once more.
    /// - Returns: whether there are more after all.
    public func askForKick() -> Bool {
        if usesEventIndex {
            unsafe ring_store_relaxed_16(used + 4 + 8 * size, seen)
        } else {
            unsafe ring_store_relaxed_16(used, 0)
        }
        ring_full_fence()
        return unsafe ring_load_acquire_16(available + 2) != seen
    }

    /// Wants no kicks while it works.
    public func silence() {
        if !usesEventIndex { unsafe ring_store_relaxed_16(used, UInt16(VRING_USED_F_NO_NOTIFY)) }
    }
}
