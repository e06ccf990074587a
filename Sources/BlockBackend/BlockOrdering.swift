// Which requests of one ring may run side by side, and which wait for which.

/// What matters of a request for ordering: what it does, and to which bytes of the disk.
struct OrderedExtent: Hashable, Sendable {
    enum Kind: UInt8, Sendable {
        case read
        /// Changes the extent: write, discard.
        case write
        /// Makes durable what was written before; carries no extent of its own.
        case flush
        /// All before is done before it, all after waits for it (blkif.h, BLKIF_OP_WRITE_BARRIER).
        case barrier
    }
    var kind: Kind
    /// First byte and the byte after the last; equal when there is none.
    var start: UInt64
    var end: UInt64

    func overlaps(_ other: OrderedExtent) -> Bool { start < other.end && other.start < end }

    /// Whether `self`, later in the ring, must wait until `earlier` is done.
    ///
    /// Reads pass reads and everything passes a flush; a flush covers all writes taken before it.
    func mustWait(for earlier: OrderedExtent) -> Bool {
        switch (earlier.kind, kind) {
        case (.barrier, _), (_, .barrier): true
        case (.write, .flush): true
        case (_, .flush), (.flush, _): false
        case (.read, .read): false
        case (.write, .read), (.read, .write), (.write, .write): overlaps(earlier)
        }
    }
}

/// The requests of one ring that are not done yet, in ring order, each with the number of earlier ones it waits for.
///
/// All storage is allocated up front. Admitting and finishing cost next to nothing while nothing has to wait, otherwise
/// a walk over the requests in flight.
struct OrderBook: ~Copyable {
    private struct Entry {
        var extent = OrderedExtent(kind: .read, start: 0, end: 0)
        var blockers: UInt16 = 0
        var previous: Int16 = -1
        var next: Int16 = -1
    }

    private var entries: [Entry]
    private var first: Int16 = -1
    private var last: Int16 = -1
    /// Requests in flight that are not reads.
    private var ordering = 0
    /// Requests that wait for others.
    private(set) var parked = 0

    /// - Parameter slots: requests in flight at most; they are named 0 ..< slots.
    init(slots: Int) {
        precondition(slots > 0 && slots <= Int(Int16.max))
        entries = Array(repeating: Entry(), count: slots)
    }

    var isEmpty: Bool { first < 0 }

    /// Adds the next request of the ring.
    /// - Returns: true if it may run now; otherwise `finish` of another will name it.
    mutating func admit(_ slot: Int, _ extent: OrderedExtent) -> Bool {
        var blockers: UInt16 = 0
        if ordering > 0 || extent.kind != .read {
            var place = first
            while place >= 0 {
                if extent.mustWait(for: entries[Int(place)].extent) { blockers &+= 1 }
                place = entries[Int(place)].next
            }
        }
        let own = Int16(truncatingIfNeeded: slot)
        entries[slot] = Entry(extent: extent, blockers: blockers, previous: last, next: -1)
        if last >= 0 { entries[Int(last)].next = own } else { first = own }
        last = own
        if extent.kind != .read { ordering &+= 1 }
        if blockers > 0 { parked &+= 1 }
        return blockers == 0
    }

    /// Removes a request that is done and appends those that may run now, in ring order, to `runnable`.
    mutating func finish(_ slot: Int, runnable: inout [UInt16]) {
        let done = entries[slot]
        if done.previous >= 0 { entries[Int(done.previous)].next = done.next } else { first = done.next }
        if done.next >= 0 { entries[Int(done.next)].previous = done.previous } else { last = done.previous }
        if done.extent.kind != .read { ordering &-= 1 }
        guard parked > 0 else { return }
        var place = done.next
        while place >= 0 {
            let index = Int(place)
            if entries[index].blockers > 0, entries[index].extent.mustWait(for: done.extent) {
                entries[index].blockers &-= 1
                if entries[index].blockers == 0 {
                    parked &-= 1
                    runnable.append(UInt16(truncatingIfNeeded: index))
                }
            }
            place = entries[index].next
        }
    }
}
