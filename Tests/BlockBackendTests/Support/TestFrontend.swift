// A block frontend made for tests: it does what it is told, right or wrong, and looks for answers by polling.

internal import BackendCore
internal import FrontendDrivers
internal import Hypervisor
internal import SharedRing
internal import SimulatedHypervisor
internal import TestSupport
internal import XenWire

/// One ring of a test frontend with its pages and port.
final class TestRing {
    let raw: RawRing
    let abi: BlockABI
    var ring: FrontRing
    private let scratch: PrivatePages

    init(_ guest: any Hypervisor, pages: Int, abi: BlockABI) throws {
        raw = try RawRing(guest, backend: .initial, stride: abi.requestSize, pageCount: pages)
        self.abi = abi
        ring = FrontRing(pages: raw.grant.pages, stride: abi.requestSize)
        scratch = try PrivatePages(byteCount: 4096)
    }

    /// Puts a request whose bytes `fill` writes, without publishing it.
    func put(_ fill: (Slot) -> Void) {
        let slot = scratch.slot(at: 0, byteCount: 112)
        fill(slot)
        ring.put(request: slot, count: abi.requestSize)
    }

    /// Publishes, and notifies if asked to.
    func push() { if ring.push() { raw.notify() } }

    /// All responses that are there.
    func take() throws -> [BlockResponse] {
        var responses: [BlockResponse] = []
        var waiting = try ring.poll()
        while waiting > 0 {
            let slot = scratch.slot(at: 0, byteCount: abi.responseSize)
            ring.takeNext(into: slot, count: abi.responseSize)
            if let response = BlockResponse(decoding: slot) { responses.append(response) }
            waiting -= 1
        }
        return responses
    }

    /// Waits for `count` responses. On a busy machine the waiting itself can take long: the last look is after it.
    func responses(_ count: Int, within limit: Duration = .seconds(20)) async throws -> [BlockResponse] {
        var all = try take()
        let end = ContinuousClock.now + limit
        while all.count < count {
            let isLast = ContinuousClock.now >= end
            if !isLast { try await Task.sleep(for: .microseconds(200)) }
            all += try take()
            if isLast { break }
        }
        return all
    }
}

/// A frontend of one disk. Its data pages are granted once and used again and again.
final class TestFrontend {
    let guest: SimulatedHypervisor
    let path: DevicePath
    let abi: BlockABI
    let rings: [TestRing]
    let data: SharedGrant
    let scratch: PrivatePages
    private var nextID: UInt64 = 1

    /// - Parameter dataPages: pages granted for data.
    init(
        _ guest: SimulatedHypervisor,
        _ path: DevicePath,
        abi: BlockABI = .native,
        queues: Int = 1,
        ringOrder: Int = 0,
        dataPages: Int = 64
    ) throws {
        self.guest = guest
        self.path = path
        self.abi = abi
        rings = try (0..<queues).map { _ in try TestRing(guest, pages: 1 << ringOrder, abi: abi) }
        data = try guest.sharing.share(pageCount: dataPages, with: .initial, access: .readWrite)
        scratch = try PrivatePages(byteCount: dataPages * 4096)
    }

    var ring: TestRing { rings[0] }

    /// The keys of a right connection.
    func keys(persistent: Bool = false) -> [String: String] {
        var keys = [BlockKeys.featurePersistent: persistent ? "1" : "0"]
        for (key, value) in RawBlockFrontend.keys(of: rings.map(\.raw), abi) { keys[key] = value }
        return keys
    }

    /// Writes the keys and state 3.
    func publish(_ keys: [String: String]) async throws {
        let frontend = path.frontend
        try await guest.store.transaction { (store) throws(HypervisorFailure) in
            for (name, value) in keys { try store.write("\(frontend)/\(name)", value) }
            try store.write("\(frontend)/state", "3")
        }
    }

    func setState(_ state: XenbusState) async throws {
        try await guest.store.write("\(path.frontend)/state", state.text)
    }

    /// The whole way to 4 on both sides.
    func connect(persistent: Bool = false) async throws -> Bool {
        guard try await backend(reaches: .initWait) else { return false }
        try await publish(keys(persistent: persistent))
        guard try await backend(reaches: .connected) else { return false }
        try await setState(.connected)
        return true
    }

    func backend(reaches state: XenbusState, within limit: Duration = .seconds(20)) async throws -> Bool {
        let node = path.absolute(in: .initial) + "/state"
        return try await eventually(within: limit) { try await self.guest.store.read(node) == state.text }
    }

    func backendKey(_ name: String) async throws -> String? {
        try await guest.store.read(path.absolute(in: .initial) + "/" + name)
    }

    func newID() -> UInt64 {
        nextID += 1
        return nextID
    }

    /// Segments over whole data pages from `page` on, for `bytes` bytes (a multiple of 512).
    func segments(page: Int, bytes: Int) -> [BlockSegment] {
        var segments: [BlockSegment] = []
        var left = bytes
        while left > 0 {
            let sectors = min(left, 4096) / 512
            segments.append(
                BlockSegment(
                    reference: data.references[page + segments.count],
                    firstSector: 0,
                    lastSector: UInt8(sectors - 1)
                )
            )
            left -= sectors * 512
        }
        return segments
    }

    /// Fills data pages from `page` on.
    func fill(page: Int, _ bytes: [UInt8]) { fill(offset: page * 4096, bytes) }

    func fill(offset: Int, _ bytes: [UInt8]) {
        scratch.write(bytes, at: offset)
        data.pages.copyIn(at: offset, count: bytes.count, from: scratch, at: offset)
    }

    /// Writes segments as an indirect page holds them.
    func fillSegments(page: Int, _ segments: [BlockSegment]) {
        BlockABI.encode(segments, into: scratch.slot(at: page * 4096, byteCount: 4096), at: 0)
        data.pages.copyIn(at: page * 4096, count: segments.count * 8, from: scratch, at: page * 4096)
    }

    /// What the data pages from `page` on hold.
    func contents(page: Int, count: Int) -> [UInt8] { contents(offset: page * 4096, count: count) }

    func contents(offset: Int, count: Int) -> [UInt8] {
        data.pages.copyOut(at: offset, count: count, to: scratch, at: offset)
        return scratch.withBytes(at: offset, count: count) { span in
            unsafe span.withUnsafeBytes { unsafe Array($0) }
        }
    }

    /// One request and its answer.
    func ask(
        _ operation: BlockOperation,
        sector: UInt64 = 0,
        segments: [BlockSegment] = [],
        on queue: Int = 0
    ) async throws -> BlockStatus? {
        let id = newID()
        rings[queue].put { abi.encode(operation, id: id, sector: sector, segments: segments, into: $0) }
        rings[queue].push()
        let responses = try await rings[queue].responses(1)
        guard responses.count == 1, responses[0].id == id, responses[0].operation == operation else { return nil }
        return responses[0].status
    }

    /// Writes `bytes` (a multiple of 512, at most 11 pages).
    func write(_ bytes: [UInt8], at sector: UInt64, page: Int = 0, on queue: Int = 0) async throws -> BlockStatus? {
        fill(page: page, bytes)
        return try await ask(.write, sector: sector, segments: segments(page: page, bytes: bytes.count), on: queue)
    }

    /// Reads `count` bytes; nil unless the answer is okay.
    func read(_ count: Int, at sector: UInt64, page: Int = 0, on queue: Int = 0) async throws -> [UInt8]? {
        let status = try await ask(.read, sector: sector, segments: segments(page: page, bytes: count), on: queue)
        return status == .okay ? contents(page: page, count: count) : nil
    }
}
