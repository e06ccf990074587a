// One ring and everything its requests in flight hold; the stages of a turn are extensions in the files beside.

internal import BackendCore
internal import HostIO
internal import Hypervisor
internal import SharedRing
internal import XenWire

/// A ring with its journal, order book, persistent grants and requests. One queue owns it and passes it on `inout`,
/// once per batch (which keeps a turn as cheap as in C).
///
/// A request lives in a journal slot, and the slot's number is its index in every table here. Nothing is allocated per
/// request: all tables are allocated up front, in sizes that follow the ring's.
struct BlockRingState: ~Copyable {
    /// The most bytes that go to the disk as one operation: larger requests are split, adjacent ones merged up to it.
    static let transferBytes = 256 * 1024
    /// Bytes of the largest request.
    static let requestBytes = BlockCapabilities.maxIndirectSegments * SharedPages.pageSize
    /// Chunks of the pool that the largest request needs.
    static let chunksPerRequest = requestBytes / BufferPool.chunkBytes
    /// A turn that moves data itself, to or from an image in memory, takes more requests only while it has moved fewer
    /// bytes than this, and no more of them at once than this. The rest waits in the ring while other queues get their
    /// turn.
    static let bytesNowPerTurn = 1024 * 1024
    static let requestsNow = 32
    /// Bytes of the segments of the largest request: one page holds them.
    static let indirectBytes = BlockCapabilities.maxIndirectSegments * BlockWire.segmentSize

    let facts: BlockQueueFacts
    /// The queue's name on its loop.
    let target: TargetID
    /// nil: the drive is empty.
    var medium: BlockMedium?
    /// What requests are validated against.
    var limits: BlockLimits
    /// A medium to insert as soon as no transfer uses the present one.
    var next: NextMedium?

    var ring: SlotRing
    var order: OrderBook
    var cache = PersistentGrantCache()
    /// Mappings that failed; after some, data is only copied.
    var failedMappings = 0
    var metrics = BlockMetrics()
    var log: FaultLog

    /// By slot.
    var requests: [PendingRequest]
    /// Chunks of the pool, by slot × chunksPerRequest.
    var chunks: [UInt16]
    /// Private copies of indirect segments, by slot × indirectBytes; resident as they are used.
    let indirect: PrivatePages
    var transfers: [DiskTransfer]
    var freeTransfers: [UInt16]
    var runs = IORuns()
    /// Transfers that completed synchronously; empty between turns.
    var ended: [EndedTransfer] = []
    /// Bytes that this turn moved itself.
    var bytesNow = 0

    // Lists of slots; all but `starved` are empty between turns.
    var fresh: [UInt16] = []
    var runnable: [UInt16] = []
    var ready: [UInt16] = []
    var arrived: [UInt16] = []
    /// The request that each entry of the batch belongs to.
    var copyOwners: [UInt16] = []
    /// Requests that wait for buffers, first in, first out.
    var starved = SlotQueue()
    /// Buffers were freed in this turn.
    var hasFreedBuffers = false
    /// No other queue of the loop waits for buffers.
    var mayTakeBuffers = true
    /// Nanoseconds; the time of this turn.
    var now: UInt64 = 0

    /// - Parameter indirect: at least `indirectBytes` for each slot.
    init(
        _ facts: BlockQueueFacts,
        target: TargetID,
        ring: consuming SlotRing,
        indirect: PrivatePages,
        log: FaultLog
    ) {
        let slots = ring.slotCount
        let transferCount = slots * (BlockRingState.requestBytes / BlockRingState.transferBytes)
        self.facts = facts
        self.target = target
        self.ring = ring
        self.indirect = indirect
        self.log = log
        medium = nil
        limits = BlockLimits(capacity: 0)
        order = OrderBook(slots: slots)
        requests = Array(repeating: PendingRequest(.unused, isIndirect: false, takenAt: 0), count: slots)
        chunks = Array(repeating: 0, count: slots * BlockRingState.chunksPerRequest)
        let idle = DiskTransfer(kind: .flush, head: -1, offset: 0, byteCount: 0, skipped: 0, done: 0)
        transfers = Array(repeating: idle, count: transferCount)
        freeTransfers = (0..<transferCount).reversed().map { UInt16(truncatingIfNeeded: $0) }
        fresh.reserveCapacity(slots)
        runnable.reserveCapacity(slots)
        ready.reserveCapacity(slots)
        arrived.reserveCapacity(slots)
        ended.reserveCapacity(BlockRingState.requestsNow)
    }

    /// The bytes that hold a request's segments.
    func segments(of slot: Int) -> Slot {
        requests[slot].isIndirect
            ? indirect.slot(at: slot &* BlockRingState.indirectBytes, byteCount: BlockRingState.indirectBytes)
            : ring.request(slot)
    }
}

/// A first-in, first-out list that reuses its memory.
struct SlotQueue: Sendable {
    private var slots: [UInt16] = []
    private var head = 0

    var isEmpty: Bool { head == slots.count }
    var first: Int? { isEmpty ? nil : Int(slots[head]) }

    mutating func append(_ slot: Int) {
        if isEmpty {
            slots.removeAll(keepingCapacity: true)
            head = 0
        }
        slots.append(UInt16(truncatingIfNeeded: slot))
    }

    mutating func removeFirst() {
        head &+= 1
        if head > 1024 {
            slots.removeFirst(head)
            head = 0
        }
    }
}
