// A request between take and answer: where it stands and what it holds.

internal import XenWire

/// One journal slot's request. Plain values: the bytes stay in the slot.
struct PendingRequest: Sendable {
    /// The stages of a request, in the order in which a barrier with data walks through them.
    enum Step: UInt8, Sendable {
        /// Waits for order, buffers or its turn.
        case waiting
        /// What was written before becomes durable.
        case flushingBefore
        case transferring
        /// A barrier's own data becomes durable.
        case flushingAfter
    }

    var request: BlockRequest
    /// Whether the segments lie in the queue's copy of the indirect page instead of the journal's slot.
    var isIndirect = false
    var step = Step.waiting
    /// Chunks of the buffer pool it holds, from `slot × chunksPerRequest` in the queue's table.
    var chunkCount: UInt8 = 0
    /// Transfers that are not finished.
    var outstanding: UInt8 = 0
    /// The next request of the same transfer, -1 at the end.
    var next: Int16 = -1
    /// The first fault; later ones are ignored.
    var fault: BlockFault?
    /// Nanoseconds of the monotonic clock.
    var takenAt: UInt64

    init(_ request: BlockRequest, isIndirect: Bool, takenAt: UInt64) {
        self.request = request
        self.isIndirect = isIndirect
        self.takenAt = takenAt
    }

    /// Bytes of data in pool buffers.
    var dataBytes: Int { request.segmentCount == 0 ? 0 : Int(truncatingIfNeeded: request.byteCount) }

    /// The first thing to do.
    var firstStep: Step {
        switch request.kind {
        case .flush, .writeBarrier: .flushingBefore
        case .read, .write, .discard, .secureDiscard: .transferring
        }
    }

    /// What comes after `step` went well; nil: the answer.
    var nextStep: Step? {
        switch (step, request.kind) {
        case (.waiting, _): firstStep
        case (.flushingBefore, _): dataBytes > 0 ? .transferring : nil
        case (.transferring, .writeBarrier): .flushingAfter
        case (.transferring, _), (.flushingAfter, _): nil
        }
    }

    /// For the order book.
    var extent: OrderedExtent {
        let start = request.byteOffset
        let end = start &+ request.byteCount
        return switch request.kind {
        case .read: OrderedExtent(kind: .read, start: start, end: end)
        case .write, .discard, .secureDiscard: OrderedExtent(kind: .write, start: start, end: end)
        case .writeBarrier: OrderedExtent(kind: .barrier, start: 0, end: 0)
        // With data it is ordered like a barrier: rare, and never wrong.
        case .flush: OrderedExtent(kind: dataBytes > 0 ? .barrier : .flush, start: 0, end: 0)
        }
    }
}

/// One operation on its way to the disk: whole requests next to each other on the disk, or a piece of a large one.
struct DiskTransfer: Sendable {
    enum Kind: String, Sendable { case read, write, flush, discard }
    var kind: Kind
    /// First request; the others follow by `next`.
    var head: Int16
    /// First byte on the disk.
    var offset: UInt64
    var byteCount: Int
    /// Bytes of the first request that belong to earlier pieces.
    var skipped: Int
    /// Bytes moved so far.
    var done: Int
}

/// A transfer, by its index, that ended while it was started.
struct EndedTransfer: Sendable {
    var index: UInt32
    /// As in a completion: bytes moved, or a negated `errno`.
    var result: Int32
}
