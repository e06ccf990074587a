// The tables of an engine: requests, changes, copies, operations.

internal import SharedRing
internal import SystemPackage

/// A ring's request, from `begin` to `ended`.
struct EngineRequest {
    /// What keeps a request from going on.
    enum Wait: Equatable {
        case nothing
        /// Other requests have its units.
        case units
        /// A page of a layer's metadata is being read.
        case page(layer: Int, number: UInt64)
        /// A compressed cluster is being read, or all decoders are at work.
        case decoder
        /// Space is being claimed, or another change is in the way.
        case space
        /// Others' turn.
        case turn
    }
    enum Hold { case none, shared, exclusive }

    var client: Int
    /// The ring's own number for it.
    var name: Int
    var kind: EngineRequestKind
    var range: DiskRange
    var units: DiskRange
    var hold = Hold.none
    var wait = Wait.nothing
    var isFree = false
    /// Bytes that have been placed, from the beginning.
    var placed: UInt64 = 0
    /// Moves that have not ended.
    var outstanding = 0
    /// Its change under way.
    var change = -1
    var errno: Errno?
}

/// Bytes on their way between a ring's buffers and a file.
struct EngineMove {
    var request: Int
    /// The change whose step it is.
    var change = -1
    /// The decoder that the bytes come from.
    var decoder = -1
}

/// A plan being carried out.
struct EngineChange {
    /// A word of the metadata as it was.
    struct Undo {
        var place: Int
        var inPage: Int
        var width: Int
        var value: UInt64
    }
    struct PageUse {
        var place: Int
        /// The version of the page that has this round's stores; 0 before.
        var version: UInt32 = 0
        var isWritten = false
    }

    var plan = ImagePlan()
    /// −1: upkeep.
    var request = -1
    /// Bytes of the request before the plan's range.
    var base: UInt64 = 0
    /// The first step of the round, and the one behind its last.
    var round = 0
    var roundEnd = 0
    /// Steps of the round that have not ended.
    var outstanding = 0
    /// Pages of this round, pinned.
    var pages: [PageUse] = []
    var undo: [Undo] = []
    var hasStored = false
    var isActive = false
    /// A page that must be read before the round can begin.
    var awaitedPage: UInt64?
    var errno: Errno?
}

/// Bytes being copied: from what the disk reads, or from the leaf's file.
struct EngineCopy {
    var change = -1
    var isKeep = false
    /// Of the disk, or of the file.
    var source: UInt64 = 0
    var target: UInt64 = 0
    var left: UInt64 = 0
    /// Bytes of the piece being moved.
    var piece = 0
    var buffer = -1
    var isActive = false
    var wait = EngineRequest.Wait.nothing
}

/// A compressed cluster, on its way or decoded.
struct EngineDecoder {
    enum State: Equatable {
        case empty, reading, decoding, ready
        case failed(Errno)
    }
    let input: Int
    let output: Int
    var state = State.empty
    var file = 0
    var cluster: CompressedCluster?
    /// Copies out of it that have not been made.
    var pins = 0
    var lastUse: UInt64 = 0

    init(input: Int, output: Int) {
        self.input = input
        self.output = output
    }

    /// Input: what an entry can speak of, with the alignment at both ends.
    static func inputBytes(_ cluster: Int) -> Int { (2 * cluster + 3 * 4096) & ~4095 }
    static func bytes(_ cluster: Int) -> Int { inputBytes(cluster) + ((cluster + 4095) & ~4095) }
}

/// An operation that was given to the owner.
struct EnginePending {
    enum Owner: Equatable {
        case nobody
        case pageLoad(layer: Int, place: Int)
        case pageWrite(place: Int, staging: Int)
        case copy(Int)
        case change(Int)
        case flush
        case decoder(Int)
    }
    var owner: Owner
    var kind: EngineOperation.Kind
    var file: Int
    var offset: UInt64
    var byteCount: Int
    var buffer: Int
    var pages: PrivatePages
    var done = 0
}

/// A ring's orders, first in, first out.
struct EngineOrders {
    var list: [EngineOrder] = []
    private var head = 0
    var isEmpty: Bool { head == list.count }

    mutating func take() -> EngineOrder? {
        guard head < list.count else {
            list.removeAll(keepingCapacity: true)
            head = 0
            return nil
        }
        defer { head &+= 1 }
        return list[head]
    }
}

/// The format's own work.
enum EngineUpkeep: Equatable {
    case idle
    case page(UInt64)
    case running(change: Int)
}

/// One flush at a time; who comes while it runs joins the next.
struct EngineFlush {
    /// Something was written since the last flush began.
    var isNeeded = true
    var isRunning = false
    /// Changes and requests of the flush that runs, and of the next one.
    var changes: [Int] = []
    var requests: [Int] = []
    var nextChanges: [Int] = []
    var nextRequests: [Int] = []
    /// The format wants one.
    var isWanted = false

    mutating func begin() {
        isRunning = true
        isNeeded = false
        isWanted = false
        swap(&changes, &nextChanges)
        swap(&requests, &nextRequests)
    }
}

/// The way to a closed image.
enum EngineClosing: Equatable {
    case open
    /// What was discarded becomes durable, space is given back, all becomes durable.
    case flushing
    case givingBack
    case flushingLast
    case closed
}
