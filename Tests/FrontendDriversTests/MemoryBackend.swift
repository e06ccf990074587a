// The smallest block backend that can serve a frontend: a disk in memory, one thread, one loop over its rings.

internal import Hypervisor
internal import SharedRing
internal import Synchronization
internal import SystemPackage
internal import XenWire

/// A backend for tests of frontends. It trusts the frontend and the test.
final class MemoryBackend: Sendable {
    struct Served: Sendable, Equatable {
        var operation: BlockOperation
        var sector: UInt64
        var segments: Int
    }

    let path: DevicePath
    let sectors: Int
    private let hypervisor: any Hypervisor
    private let disk: PrivatePages
    private let log = Mutex<[Served]>([])
    private let stopped = Atomic(false)
    /// What every request is answered with, once set.
    let status = Mutex<BlockStatus>(.okay)

    var served: [Served] { log.withLock { $0 } }

    init(_ hypervisor: any Hypervisor, _ path: DevicePath, sectors: Int) throws {
        self.hypervisor = hypervisor
        self.path = path
        self.sectors = sectors
        disk = try PrivatePages(byteCount: sectors * 512)
    }

    func stop() { stopped.store(true, ordering: .relaxed) }

    func write(_ keys: [(String, String)]) async throws {
        let path = path
        try await hypervisor.store.transaction { (store) throws(HypervisorFailure) in
            for (key, value) in keys { try store.write(path.key(key), value) }
        }
    }

    /// Goes to 2, waits for the frontend's 3, serves until stopped.
    func run() async throws {
        try await write([
            ("max-ring-page-order", "2"), ("multi-queue-max-queues", "2"), ("feature-max-indirect-segments", "256"),
            ("feature-persistent", "1"), ("feature-flush-cache", "1"), ("feature-barrier", "1"),
            ("feature-discard", "1"), ("sectors", "\(sectors)"), ("sector-size", "512"), ("info", "0"),
            ("state", "2"),
        ])
        while try await hypervisor.store.read(path.frontendKey("state")) != "3" {
            try await Task.sleep(for: .milliseconds(1))
        }
        let rings = try await connect()
        try await write([("state", "4")])
        while !stopped.load(ordering: .relaxed) {
            for ring in rings where try serve(ring) == 0 { try await Task.sleep(for: .microseconds(100)) }
        }
    }

    private final class Ring: @unchecked Sendable {
        var ring: BackRing
        let events: any EventChannels
        let port: EventChannelPort
        let abi: BlockABI
        init(_ pages: SharedPages, _ events: any EventChannels, _ port: EventChannelPort, _ abi: BlockABI) {
            ring = BackRing(pages: pages, stride: abi.requestSize)
            self.events = events
            self.port = port
            self.abi = abi
        }
    }

    private func connect() async throws -> [Ring] {
        let count = Int(try await key("multi-queue-num-queues") ?? "1")!
        let abi = BlockABI(protocolKey: try await key("protocol"))!
        let order = Int(try await key("ring-page-order") ?? "0")!
        var rings: [Ring] = []
        for queue in 0..<count {
            let folder = count > 1 ? "queue-\(queue)/" : ""
            var references: [GrantReference] = []
            for page in 0..<(1 << order) {
                let name = order == 0 ? "ring-ref" : "ring-ref\(page)"
                references.append(GrantReference(UInt32(try await key(folder + name)!)!))
            }
            let pages = try hypervisor.grants.map(references, of: path.domain, access: .readWrite)
            let events = try hypervisor.openEventChannels()
            let offered = EventChannelPort(UInt32(try await key(folder + "event-channel")!)!)
            rings.append(Ring(pages, events, try events.bind(to: offered, of: path.domain), abi))
        }
        return rings
    }

    private func key(_ name: String) async throws -> String? {
        try await hypervisor.store.read(path.frontendKey(name))
    }

    private func serve(_ ring: Ring) throws -> Int {
        let slots = try PrivatePages(byteCount: 8192)
        let request = slots.slot(at: 0, byteCount: 112)
        let count = Int(try ring.ring.poll())
        for _ in 0..<count {
            ring.ring.takeNext(into: request, count: ring.abi.requestSize)
            let raw = RawBlockRequest(request, abi: ring.abi)
            try carryOut(raw, slots)
            let response = BlockResponse(to: raw, status.withLock { $0 })
            ring.ring.put(response.words, count: ring.abi.responseSize)
        }
        if count > 0, ring.ring.publish() { ring.events.notify(ring.port) }
        return count
    }

    private func carryOut(_ raw: RawBlockRequest<Slot>, _ scratch: PrivatePages) throws {
        var operation = raw.operation
        var segments: [BlockSegment] = []
        if operation == .indirect {
            operation = raw.indirectOperation
            let bytes = raw.indirectSegmentCount * 8
            try copy(raw.indirectGrant(0), 0, bytes, into: false, scratch, 4096)
            let page = scratch.slot(at: 4096, byteCount: bytes)
            segments = (0..<raw.indirectSegmentCount).map {
                BlockSegment(
                    reference: GrantReference(page.u32($0 * 8)),
                    firstSector: page.u8($0 * 8 + 4),
                    lastSector: page.u8($0 * 8 + 5)
                )
            }
        } else if operation != .discard {
            segments = (0..<raw.segmentCount).map { raw.segment($0) }
        }
        log.withLock { $0.append(Served(operation: operation, sector: raw.sector, segments: segments.count)) }
        var sector = Int(raw.sector)
        for segment in segments {
            let count = Int(segment.lastSector) - Int(segment.firstSector) + 1
            let offset = Int(segment.firstSector) * 512
            try copy(segment.reference, offset, count * 512, into: operation == .read, disk, sector * 512)
            sector += count
        }
        if operation == .discard { disk.zero(at: sector * 512, count: Int(raw.discardSectorCount) * 512) }
    }

    private func copy(
        _ reference: GrantReference,
        _ offset: Int,
        _ count: Int,
        into: Bool,
        _ pages: PrivatePages,
        _ place: Int
    ) throws {
        var batch = GrantCopyBatch(capacity: 1)
        batch.add(
            reference: reference,
            pageOffset: UInt16(offset),
            byteCount: UInt16(count),
            intoGrant: into,
            pages: pages,
            privateOffset: place
        )
        try hypervisor.grants.copy(&batch, with: path.domain)
        guard batch.status(of: 0) == .okay else { throw HypervisorFailure("copy", .ioError) }
    }
}
