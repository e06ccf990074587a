// One ring of a block frontend: slots with their pages, requests in flight, answers.

internal import Hypervisor
internal import SharedRing
internal import XenWire

/// A read, write or other request, before it has a place in the ring.
struct FrontRequest: Sendable {
    var operation: BlockOperation
    var sector: UInt64
    /// 512-byte sectors; 0 for a flush.
    var sectorCount: Int
    var isSecure = false

    var byteCount: Int { sectorCount * BlockWire.sectorSize }
    /// Pages that hold the data; a discard has none.
    var pageCount: Int { operation == .discard ? 0 : (byteCount + SharedPages.pageSize - 1) / SharedPages.pageSize }
}

/// One ring and its pages. Belongs to its `BlockFrontend`, whose loop is the only one to touch it.
final class BlockFrontQueue {
    /// Room for one request: its number is the request's id.
    private struct Place {
        /// Granted for the connection's lifetime; nil where each request has grants of its own.
        var pool: SharedGrant?
        /// Holds the segments of an indirect request.
        var indirect: SharedGrant?
        /// The pages of the request in flight.
        var pages: SharedGrant?
        var answer: CheckedContinuation<BlockStatus?, Never>?
    }

    let port: EventChannelPort
    let ringGrant: SharedGrant
    private var ring: FrontRing
    private let abi: BlockABI
    private let maxSegments: Int
    private let events: any EventChannels
    private let sharing: any GrantSharing
    private let backend: DomainID
    private let scratch: PrivatePages
    private var places: [Place]
    private var free: [Int]
    private var waiting: [CheckedContinuation<Int?, Never>] = []
    private var isClosed = false

    init(
        hypervisor: any Hypervisor,
        events: any EventChannels,
        backend: DomainID,
        ringPages: Int,
        maxSegments: Int,
        options: BlockFrontendOptions
    ) throws(FrontendFailure) {
        let sharing = hypervisor.sharing
        self.sharing = sharing
        self.events = events
        self.backend = backend
        self.maxSegments = maxSegments
        abi = options.abi
        let ringGrant = try FrontendDrivers.hypervisor { () throws(HypervisorFailure) in
            try sharing.share(pageCount: ringPages, with: backend, access: .readWrite)
        }
        self.ringGrant = ringGrant
        ring = FrontRing(pages: ringGrant.pages, stride: options.abi.requestSize)
        port = try FrontendDrivers.hypervisor { () throws(HypervisorFailure) in try events.allocate(for: backend) }
        do { scratch = try PrivatePages(byteCount: SharedPages.pageSize * 2) } catch {
            throw .hypervisor(HypervisorFailure("allocate a request slot", error))
        }
        let count = min(Int(ring.size), max(1, options.requestsPerQueue))
        free = Array((0..<count).reversed())
        places = Array(repeating: Place(), count: count)
        for index in places.indices {
            if maxSegments > BlockWire.maxSegments { places[index].indirect = try grant(1, .readOnly) }
            if !options.grantsEachRequest { places[index].pool = try grant(maxSegments, .readWrite) }
        }
    }

    var size: Int { Int(ring.size) }

    private func grant(_ pages: Int, _ access: GrantAccess) throws(FrontendFailure) -> SharedGrant {
        try FrontendDrivers.hypervisor { () throws(HypervisorFailure) in
            try sharing.share(pageCount: pages, with: backend, access: access)
        }
    }

    // MARK: requests

    /// Runs one request: fills its pages, sends it, waits, empties its pages.
    /// - Parameters:
    ///   - bytes: data to write, or where data read goes, from `offset`.
    func run(_ request: FrontRequest, _ bytes: PrivatePages?, at offset: Int) async throws(FrontendFailure) {
        guard let index = await place() else { throw .closed }
        defer { giveBack(index) }
        if request.pageCount > 0 {
            let access: GrantAccess = request.operation == .read ? .readWrite : .readOnly
            if let pool = places[index].pool {
                places[index].pages = pool
            } else {
                places[index].pages = try grant(request.pageCount, access)
            }
        }
        defer { if index < places.count { places[index].pages = nil } }
        let pages = places[index].pages?.pages
        if request.operation != .read, let bytes, let pages {
            pages.copyIn(at: 0, count: request.byteCount, from: bytes, at: offset)
        }
        let status = await withCheckedContinuation { (continuation: CheckedContinuation<BlockStatus?, Never>) in
            if isClosed { return continuation.resume(returning: nil) }
            places[index].answer = continuation
            send(request, index)
        }
        guard let status else { throw .closed }
        guard status == .okay else { throw .answered(status) }
        if request.operation == .read, let bytes, let pages {
            pages.copyOut(at: 0, count: request.byteCount, to: bytes, at: offset)
        }
    }

    private func place() async -> Int? {
        if isClosed { return nil }
        if let index = free.popLast() { return index }
        // Answers may have arrived while the continuation was made, so check again.
        return await withCheckedContinuation { continuation in
            if isClosed {
                continuation.resume(returning: nil)
            } else if let index = free.popLast() {
                continuation.resume(returning: index)
            } else {
                waiting.append(continuation)
            }
        }
    }

    private func giveBack(_ index: Int) {
        if isClosed { return }
        if waiting.isEmpty { free.append(index) } else { waiting.removeFirst().resume(returning: index) }
    }

    private func send(_ request: FrontRequest, _ index: Int) {
        let slot = scratch.slot(at: 0, byteCount: abi.requestSize)
        let segments = segments(of: request, places[index].pages)
        let id = UInt64(index)
        if request.operation == .discard {
            abi.encodeDiscard(
                id: id,
                sector: request.sector,
                sectorCount: UInt64(request.sectorCount),
                isSecure: request.isSecure,
                into: slot
            )
        } else if segments.count > BlockWire.maxSegments, let indirect = places[index].indirect {
            let bytes = segments.count * BlockWire.segmentSize
            BlockABI.encode(segments, into: scratch.slot(at: SharedPages.pageSize, byteCount: bytes), at: 0)
            indirect.pages.copyIn(at: 0, count: bytes, from: scratch, at: SharedPages.pageSize)
            abi.encodeIndirect(
                request.operation,
                id: id,
                sector: request.sector,
                segmentCount: UInt16(segments.count),
                pages: indirect.references,
                into: slot
            )
        } else {
            abi.encode(request.operation, id: id, sector: request.sector, segments: segments, into: slot)
        }
        ring.put(request: slot, count: abi.requestSize)
        if ring.push() { events.notify(port) }
    }

    private func segments(of request: FrontRequest, _ grant: SharedGrant?) -> [BlockSegment] {
        guard let grant else { return [] }
        return (0..<request.pageCount).map { page in
            let sectors = min(BlockWire.sectorsPerPage, request.sectorCount - page * BlockWire.sectorsPerPage)
            return BlockSegment(reference: grant.references[page], firstSector: 0, lastSector: UInt8(sectors - 1))
        }
    }

    // MARK: answers

    /// Takes all answers and arms the ring for the next event.
    func takeAnswers() throws(FrontendFailure) {
        var count = try look { (ring) throws(ResponseProducerFault) in try ring.poll() }
        while count > 0 {
            while ring.waiting > 0 { try takeAnswer() }
            count = try look { (ring) throws(ResponseProducerFault) in try ring.lastLook() }
        }
    }

    private func look(
        _ body: (inout FrontRing) throws(ResponseProducerFault) -> UInt32
    ) throws(FrontendFailure) -> UInt32 {
        do throws(ResponseProducerFault) { return try body(&ring) } catch { throw .ring(error) }
    }

    private func takeAnswer() throws(FrontendFailure) {
        let slot = scratch.slot(at: 0, byteCount: abi.responseSize)
        ring.takeNext(into: slot, count: abi.responseSize)
        guard let response = BlockResponse(decoding: slot), let index = Int(exactly: response.id),
            places.indices.contains(index), let answer = places[index].answer
        else { throw .badResponse(id: slot.u64(0)) }
        places[index].answer = nil
        answer.resume(returning: response.status)
    }

    /// Closes: every waiting caller gets an error, and the pages are released with the last of them.
    func close() {
        isClosed = true
        for index in places.indices {
            places[index].answer?.resume(returning: nil)
            places[index].answer = nil
        }
        for waiter in waiting { waiter.resume(returning: nil) }
        waiting = []
        events.unbind(port)
    }
}
