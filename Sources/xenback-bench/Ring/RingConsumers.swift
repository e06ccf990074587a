// The ring turns that are compared: ours, ours with the journal, and one in C.

internal import BackendCore
internal import CBench
internal import SharedRing
internal import SystemPackage
internal import XenWire

/// The disk behind the ring, which does nothing.
private let features: BlockLimits.Features = [.flush, .barrier, .discard]
private let capacity: UInt64 = 1 << 21

/// One end of a ring that answers all that waits, once per call.
protocol RingConsumer: ~Copyable {
    static var name: String { get }
    init(_ load: borrowing RingLoad) throws
    /// Takes, validates, answers and publishes; then looks once more.
    /// - Returns: how many requests it was.
    mutating func turn() throws -> Int
}

/// SharedRing and XenWire, as BlockBackend uses them, without its I/O.
struct SwiftConsumer: RingConsumer, ~Copyable {
    static let name = "Swift"
    private var ring: BackRing
    private let memory: PrivatePages
    private let abi: BlockABI
    private let limits = BlockLimits(capacity: capacity, features: features)
    private(set) var sectors: UInt64 = 0

    init(_ load: borrowing RingLoad) throws {
        memory = try PrivatePages(byteCount: load.batch * 128)
        abi = load.abi
        ring = BackRing(pages: load.pages, stride: load.abi.requestSize)
    }

    @inline(never)
    mutating func turn() throws -> Int {
        var taken = 0
        while try ring.poll() > 0 {
            while ring.waiting > 0 {
                let place = Int(truncatingIfNeeded: ring.requestConsumer & (ring.size &- 1))
                let slot = memory.slot(at: place &* 128, byteCount: 112)
                ring.takeNext(into: slot, count: abi.requestSize)
                answer(slot)
                taken &+= 1
            }
            _ = ring.publish()
            if try ring.lastLook() == 0 { break }
        }
        return taken
    }

    @inline(__always)
    private mutating func answer(_ slot: Slot) {
        let raw = RawBlockRequest(slot, abi: abi)
        do throws(BlockRequestFault) {
            let request = try BlockRequest(validating: raw, for: limits)
            sectors &+= request.sectorCount
            ring.put(BlockResponse(to: request, .okay).words, count: abi.responseSize)
        } catch {
            ring.put(BlockResponse(to: raw, error.status).words, count: abi.responseSize)
        }
    }
}

/// The same with each request in the journal, by the ring that BlockBackend uses.
struct JournalConsumer: RingConsumer, ~Copyable {
    static let name = "Swift with journal"
    private var ring: SlotRing
    private let journal: RequestJournal
    private let abi: BlockABI
    private let limits = BlockLimits(capacity: capacity, features: features)
    private var fresh: [UInt16] = []
    private(set) var sectors: UInt64 = 0

    init(_ load: borrowing RingLoad) throws {
        let path = FilePath("/dev/shm/xenback-bench-journal")
        let journal = try RequestJournal.create(at: path, identity: "bench", layout: .slots(load.batch, queues: 1))
        let ring = try SlotRing(
            load.pages,
            SlotFormat(requestBytes: load.abi.requestSize, responseBytes: load.abi.responseSize),
            journal: journal.queue(0),
            isTakeover: false
        )
        self.ring = ring
        self.journal = journal
        abi = load.abi
        fresh.reserveCapacity(load.batch)
    }

    deinit { RequestJournal.remove(at: journal.path) }

    @inline(never)
    mutating func turn() throws -> Int {
        var taken = 0
        repeat {
            fresh.removeAll(keepingCapacity: true)
            taken &+= try ring.take(into: &fresh)
            for slot in fresh { answer(Int(slot)) }
            _ = ring.publish()
        } while try ring.lastLook() > 0
        return taken
    }

    @inline(__always)
    private mutating func answer(_ slot: Int) {
        let raw = RawBlockRequest(ring.request(slot), abi: abi)
        do throws(BlockRequestFault) {
            let request = try BlockRequest(validating: raw, for: limits)
            sectors &+= request.sectorCount
            ring.put(BlockResponse(to: request, .okay).words, for: slot)
        } catch {
            ring.put(BlockResponse(to: raw, error.status).words, for: slot)
        }
    }
}

/// `bench_ring_turn` of CBench.
@safe
struct CConsumer: RingConsumer, ~Copyable {
    static let name = "C"
    // SAFETY: points into `pages` and `memory`, which this struct keeps.
    private var ring: bench_ring
    private let pages: SharedPages
    private let memory: PrivatePages

    init(_ load: borrowing RingLoad) throws {
        pages = load.pages
        memory = try PrivatePages(byteCount: load.batch * 128)
        unsafe ring = bench_ring(
            base: pages.unsafeBase.assumingMemoryBound(to: UInt8.self),
            slots: memory.unsafeAddress(at: 0, count: load.batch * 128).assumingMemoryBound(to: UInt8.self),
            size: UInt32(load.batch),
            stride: UInt32(load.abi.requestSize),
            shift: UInt32(load.abi.requestSize - 108),
            consumed: 0,
            produced: 0,
            capacity: capacity,
            block_mask: 0,
            features: UInt32(features.rawValue),
            read_only: false,
            sectors: 0,
            notify: false
        )
    }

    mutating func turn() throws -> Int { Int(unsafe bench_ring_turn(&ring)) }
}
