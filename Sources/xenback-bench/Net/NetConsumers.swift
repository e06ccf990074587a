// Who empties the rings: our queue, the same in C, and the interface's part of it alone.

internal import BackendCore
internal import CBench
internal import HostIO
internal import HostNetwork
internal import Hypervisor
internal import NetBackend
internal import SharedRing
internal import Synchronization
internal import SystemPackage
internal import XenWire

/// One end of a card's two rings.
protocol NetConsumer: ~Copyable {
    static var name: String { get }
    /// Everything in the transmit ring goes to the interface.
    mutating func sendAll() -> Bool
    /// Everything that the interface has goes into the receive ring.
    mutating func receiveAll() -> Bool
}

/// `NetLane`: what a worker's queue does in its turns.
struct LaneConsumer: NetConsumer, ~Copyable {
    static let name = "Swift"
    private var lane: NetLane
    let grants: TimedGrants

    init(_ load: borrowing NetLoad, _ path: DevicePath, _ environment: WorkerEnvironment, _ wire: BenchWire) throws {
        let grants = TimedGrants(environment.hypervisor.grants)
        self.grants = grants
        lane = try NetLane(path, environment, keys: load.keys, grants: grants, device: wire)
    }

    mutating func sendAll() -> Bool { lane.sendAll() }
    mutating func receiveAll() -> Bool { lane.receiveAll() }
}

/// `bench_net_…_turn` of CBench.
@safe
struct PlainConsumer: NetConsumer, ~Copyable {
    static let name = "C"
    // SAFETY: both point into pages and tables that this struct keeps.
    private var out: bench_net
    private var back: bench_net
    private let keep: [SharedPages]
    private let frame: PrivatePages
    private let places: [Places]
    private let batch: CInt

    /// Which page a reference stands for, as a table in memory.
    private struct Places {
        let first: UInt32
        let count: Int
        let table: PrivatePages

        init(_ grant: SharedGrant) throws {
            let numbers = grant.references.map(\.rawValue)
            guard let first = numbers.min(), let last = numbers.max(), last - first < 1 << 20 else {
                throw BenchFailure("no table for references of \(numbers.count) pages")
            }
            self.first = first
            count = Int(last - first) + 1
            table = try PrivatePages(byteCount: 2 * count)
            let slot = table.slot(at: 0, byteCount: 2 * count)
            for place in 0..<count { slot.set16(0xFFFF, at: 2 * place) }
            for (page, number) in numbers.enumerated() { slot.set16(UInt16(page), at: 2 * Int(number - first)) }
        }
    }

    init(_ load: borrowing NetLoad, _ wire: BenchWire) throws {
        let frame = try PrivatePages(byteCount: 18 * 4096)
        let (sent, received) = (try Places(load.transmitPages), try Places(load.receivePages))
        places = [sent, received]
        self.frame = frame
        batch = CInt(load.shape.batch)
        keep = [load.transmitRing.pages, load.receiveRing.pages, load.transmitPages.pages, load.receivePages.pages]
        unsafe out = PlainConsumer.queue(load.transmitRing, load.transmitPages, sent, frame, wire)
        unsafe back = PlainConsumer.queue(load.receiveRing, load.receivePages, received, frame, wire)
    }

    @unsafe
    private static func queue(
        _ ring: SharedGrant,
        _ pages: SharedGrant,
        _ places: Places,
        _ frame: PrivatePages,
        _ wire: BenchWire
    ) -> bench_net {
        unsafe bench_net(
            ring: ring.pages.unsafeBase.assumingMemoryBound(to: UInt8.self),
            pages: pages.pages.unsafeBase.assumingMemoryBound(to: UInt8.self),
            places: places.table.unsafeAddress(at: 0, count: places.table.byteCount)
                .assumingMemoryBound(to: UInt16.self),
            first_reference: places.first,
            reference_count: UInt32(places.count),
            frame: frame.unsafeAddress(at: 0, count: frame.byteCount).assumingMemoryBound(to: UInt8.self),
            descriptor: wire.queue.file.descriptor,
            consumed: 0,
            produced: 0,
            notify: false
        )
    }

    mutating func sendAll() -> Bool { unsafe bench_net_transmit_turn(&out) == batch }
    mutating func receiveAll() -> Bool { unsafe bench_net_receive_turn(&back) == batch }
}

/// The same packets between private memory and the interface, as a queue moves them: no ring, no grants.
struct HostOnly: ~Copyable {
    private var batch: PacketBatch
    private let frames: PrivatePages
    private let shape: NetShape
    private let wire: BenchWire
    private static let place = 17 * 4096

    init(_ shape: NetShape, _ wire: BenchWire) throws {
        let frames = try PrivatePages(byteCount: 64 * HostOnly.place + 4096)
        batch = try PacketBatch(packets: 64, runs: 64 * PacketBatch.runsPerPacket)
        self.frames = frames
        self.shape = shape
        self.wire = wire
        for index in 0..<shape.batch {
            shape.write(into: frames.slot(at: index * HostOnly.place, byteCount: shape.byteCount))
        }
        shape.header.encode(into: frames.slot(at: 64 * HostOnly.place, byteCount: VirtioNetHeader.byteCount))
    }

    private mutating func fill(_ byteCount: Int) {
        batch.removeAll()
        for index in 0..<shape.batch {
            batch.beginPacket()
            batch.add(frames, offset: 64 * HostOnly.place, byteCount: PacketQueue.headerBytes)
            batch.add(frames, offset: index * HostOnly.place, byteCount: byteCount)
        }
    }

    mutating func sendAll() -> Bool {
        fill(shape.byteCount)
        batch.send(to: wire.queue)
        return true
    }

    mutating func receiveAll() -> Bool {
        fill(HostOnly.place)
        return batch.receive(from: wire.queue) == shape.batch
    }
}

/// Grants that know how long their copies took.
final class TimedGrants: GrantTable {
    private let inner: any GrantTable
    private let ticks = Atomic<UInt64>(0)

    init(_ inner: any GrantTable) { self.inner = inner }

    func map(
        _ references: [GrantReference],
        of domain: DomainID,
        access: GrantAccess
    ) throws(HypervisorFailure) -> SharedPages {
        try inner.map(references, of: domain, access: access)
    }

    func copy(_ batch: inout GrantCopyBatch, with domain: DomainID) throws(HypervisorFailure) {
        let start = bench_ticks()
        try inner.copy(&batch, with: domain)
        ticks.wrappingAdd(bench_ticks() &- start, ordering: .relaxed)
    }

    /// Ticks since the last call.
    func take() -> UInt64 { ticks.exchange(0, ordering: .relaxed) }
}
