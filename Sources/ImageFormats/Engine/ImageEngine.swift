// One image at work: the leaf, its parents, and everything that is under way on them.

public import SharedRing
public import SystemPackage

/// Carries out requests on a chain of images. It belongs to one loop: all rings of its disk are there.
///
/// It never calls out. What it wants done it puts into lists that its owner empties after each call: operations on files
/// (`takeOperation`), and orders for the rings (`takeOrder`).
public final class ImageEngine: @unchecked Sendable {
    /// One file of the chain.
    public struct Layer {
        public let format: any ImageFormat
        public let cache: MetadataCache

        /// - Parameter cachePages: metadata pages that stay in memory.
        public init(_ format: any ImageFormat, cachePages: Int) throws(Errno) {
            self.format = format
            let unit = format.facts.unitBytes
            let size =
                format is RawFormat
                ? MetadataCache.pageBytes : Int(clamping: min(unit, UInt64(MetadataCache.pageBytes)))
            cache = try MetadataCache(capacity: cachePages, pageSize: size)
        }
    }

    /// Changes under way at once; more wait.
    static let changeLimit = 64
    static let chunkBytes = 65536
    static let copyBuffers = 32
    static let stagingPages = 64
    static let decodingBuffers = 4
    /// Steps that one call takes for one request before others get their turn.
    static let stepsPerCall = 256

    let layers: [Layer]
    public let byteCount: UInt64
    let unitBytes: UInt64
    /// Metadata is written in multiples of this.
    let writeUnit: Int
    /// Files are read and written at multiples of this.
    let alignment: Int
    /// Zeroes, staging pages, copy buffers, decoding buffers.
    public let pages: PrivatePages
    var leaf: Layer { layers[0] }

    var requests: [EngineRequest] = []
    var freeRequests: [Int] = []
    /// Requests that cannot go on yet, oldest first.
    var waiting: [Int] = []
    /// Requests that have their units for themselves.
    var exclusive = 0
    var changes: [EngineChange] = []
    var freeChanges: [Int] = []
    var copies: [EngineCopy] = []
    var freeCopies: [Int] = []
    var freeCopyBuffers: [Int] = []
    /// Copies that wait for a buffer.
    var copiesWithoutBuffer: [Int] = []
    var freeStaging: [Int] = []
    /// Pages of the leaf that wait for a staging page.
    var pagesToWrite: [Int] = []
    var decoders: [EngineDecoder] = []
    var decoderClock: UInt64 = 0
    var moves: [EngineMove] = []
    var freeMoves: [Int] = []
    var operations: [EnginePending] = []
    var freeOperations: [Int] = []
    /// Operations that were started and not yet taken, and those that have not ended.
    var outgoing: [EngineOperation] = []
    var nextOutgoing = 0
    public private(set) var operationsInFlight = 0
    /// For each ring.
    var orders: [EngineOrders] = []

    var upkeep = EngineUpkeep.idle
    var flush = EngineFlush()
    var closing = EngineClosing.open
    /// Something was cut short: call `goOn` when others have had their turn.
    public internal(set) var wantsTurn = false
    public private(set) var statistics = EngineStatistics()

    /// - Parameters:
    ///   - layers: the leaf first.
    ///   - alignment: of the files' offsets and of lengths, a power of two from 512: what direct I/O needs.
    public init(_ layers: [Layer], alignment: Int) throws(Errno) {
        precondition(!layers.isEmpty)
        self.layers = layers
        byteCount = layers[0].format.facts.byteCount
        unitBytes = layers[0].format.facts.unitBytes
        self.alignment = alignment
        writeUnit = min(max(layers[0].format.facts.writeUnit, alignment), layers[0].cache.pageSize)
        let cluster = layers.map { $0.format.facts.compressedClusterBytes }.max() ?? 0
        let decoding = cluster == 0 ? 0 : EngineDecoder.bytes(cluster)
        let fixed =
            ImageEngine.chunkBytes + ImageEngine.stagingPages * 4096 + ImageEngine.copyBuffers * ImageEngine.chunkBytes
        pages = try PrivatePages(byteCount: fixed + decoding * ImageEngine.decodingBuffers)
        var next = ImageEngine.chunkBytes
        for _ in 0..<ImageEngine.stagingPages {
            freeStaging.append(next)
            next += 4096
        }
        for _ in 0..<ImageEngine.copyBuffers {
            freeCopyBuffers.append(next)
            next += ImageEngine.chunkBytes
        }
        if cluster > 0 {
            for _ in 0..<ImageEngine.decodingBuffers {
                decoders.append(EngineDecoder(input: next, output: next + EngineDecoder.inputBytes(cluster)))
                next += decoding
            }
        }
        reserve()
    }

    private func reserve() {
        requests.reserveCapacity(256)
        freeRequests.reserveCapacity(256)
        waiting.reserveCapacity(256)
        outgoing.reserveCapacity(256)
        operations.reserveCapacity(256)
        freeOperations.reserveCapacity(256)
    }

    /// Adds a ring.
    /// - Returns: its number.
    public func addClient() -> Int {
        orders.append(EngineOrders())
        return orders.count - 1
    }

    /// Nothing is under way.
    public var isIdle: Bool {
        operationsInFlight == 0 && nextOutgoing == outgoing.count && requests.count == freeRequests.count
            && orders.allSatisfy { $0.isEmpty }
    }

    // MARK: what the owner takes

    /// The next operation to be started.
    public func takeOperation() -> EngineOperation? {
        guard nextOutgoing < outgoing.count else {
            outgoing.removeAll(keepingCapacity: true)
            nextOutgoing = 0
            return nil
        }
        defer { nextOutgoing &+= 1 }
        return outgoing[nextOutgoing]
    }

    /// The next order for a ring.
    public func takeOrder(for client: Int) -> EngineOrder? { orders[client].take() }

    public func hasOrders(for client: Int) -> Bool { !orders[client].isEmpty }

    func tell(_ client: Int, _ order: EngineOrder) { orders[client].list.append(order) }

    // MARK: operations

    func start(
        _ kind: EngineOperation.Kind,
        file: Int,
        offset: UInt64,
        byteCount: Int,
        in pages: PrivatePages,
        at buffer: Int,
        for owner: EnginePending.Owner
    ) {
        let pending = EnginePending(
            owner: owner,
            kind: kind,
            file: file,
            offset: offset,
            byteCount: byteCount,
            buffer: buffer,
            pages: pages
        )
        let index: Int
        if let free = freeOperations.popLast() {
            operations[free] = pending
            index = free
        } else {
            operations.append(pending)
            index = operations.count - 1
        }
        operationsInFlight &+= 1
        if kind == .write { flush.isNeeded = true }
        submit(index)
    }

    private func submit(_ index: Int) {
        let pending = operations[index]
        outgoing.append(
            EngineOperation(
                kind: pending.kind,
                file: pending.file,
                offset: pending.offset &+ UInt64(pending.done),
                byteCount: pending.byteCount &- pending.done,
                pages: pending.pages,
                buffer: pending.buffer &+ pending.done,
                token: UInt32(truncatingIfNeeded: index)
            )
        )
    }

    /// An operation has ended.
    /// - Parameter result: as in a completion: at least 0, or a negated `errno`.
    public func completed(_ token: UInt32, result: Int32) {
        let index = Int(token)
        let pending = operations[index]
        var errno: Errno? = result < 0 ? Errno(rawValue: 0 &- result) : nil
        if errno == .interrupted || errno == .resourceTemporarilyUnavailable {
            submit(index)
            return
        }
        if pending.kind == .read || pending.kind == .write, result > 0 {
            operations[index].done &+= Int(result)
            let rest = pending.byteCount &- operations[index].done
            // A read that ends within a sector ends with its file.
            let isAtEnd = pending.kind == .read && Int(result) & 511 != 0
            if rest > 0, !isAtEnd {
                submit(index)
                return
            }
        }
        let done = operations[index].done
        if pending.kind == .read, errno == nil, done < pending.byteCount {
            pending.pages.zero(at: pending.buffer &+ done, count: pending.byteCount &- done)
        }
        if pending.kind == .write, errno == nil, done < pending.byteCount { errno = .ioError }
        if pending.kind == .write { flush.isNeeded = true }
        operations[index].owner = .nobody
        freeOperations.append(index)
        operationsInFlight &-= 1
        ended(pending, errno)
        goOn()
    }

    private func ended(_ pending: EnginePending, _ errno: Errno?) {
        switch pending.owner {
        case .nobody: break
        case .pageLoad(let layer, let place): pageLoaded(layer, place, errno)
        case .pageWrite(let place, let staging): pageWritten(place, staging, errno)
        case .copy(let index): copyMoved(index, pending.kind, errno)
        case .change(let index): stepEnded(index, errno)
        case .flush: flushEnded(errno)
        case .decoder(let index): decoderMoved(index, pending.kind, errno)
        }
    }

    /// Goes on with what was cut short or waits for a turn.
    public func goOn() {
        wantsTurn = false
        retryStalled()
        advanceWaiting()
        runUpkeep()
        runClosing()
        count()
    }

    private func count() {
        statistics.cachedPages = layers.reduce(0) { $0 + $1.cache.used }
        statistics.waiting = waiting.count
    }
}

/// Counters for reports.
public struct EngineStatistics: Equatable, Sendable {
    public var cachedPages = 0
    public var waiting = 0
}
