// A well-behaved frontend on the other side of the ring: puts requests, takes and checks the answers.

internal import Glibc
internal import SharedRing
internal import XenWire

/// What the requests look like.
enum RingMix: CaseIterable {
    case one, eleven, mixed

    var name: String {
        switch self {
        case .one: "1 segment"
        case .eleven: "11 segments"
        case .mixed: "mixed"
        }
    }

    /// Request number `index`: mixed are reads and writes of 1 … 11 segments, every 16th a flush, every 32nd a discard.
    func encode(_ index: Int, into slot: Slot, abi: BlockABI) {
        let id = UInt64(index)
        let sector = UInt64(index &* 7919 % 1_000_000)
        switch (self, index % 32) {
        case (.mixed, 7): abi.encodeDiscard(id: id, sector: sector, sectorCount: 64, into: slot)
        case (.mixed, 3), (.mixed, 19): abi.encode(.flushDiskCache, id: id, sector: 0, segments: [], into: slot)
        default:
            let count = self == .one ? 1 : self == .eleven ? 11 : index &* 5 % 11 + 1
            let segments = (0..<count).map { segment in
                BlockSegment(
                    reference: GrantReference(UInt32(truncatingIfNeeded: 8 + segment)),
                    firstSector: UInt8(truncatingIfNeeded: segment & 1),
                    lastSector: 7
                )
            }
            let operation: BlockOperation = index & 1 == 0 ? .read : .write
            abi.encode(operation, id: id, sector: sector, segments: segments, into: slot)
        }
    }
}

/// The frontend and the pages that both ends see.
struct RingLoad: ~Copyable {
    let pages: SharedPages
    let abi: BlockABI
    private var front: FrontRing
    private let templates: PrivatePages
    private let response: Slot
    private let count: Int

    init(_ mix: RingMix, abi: BlockABI) throws {
        let shared = try PrivatePages(byteCount: SharedPages.pageSize)
        // SAFETY: the page lives as long as the closure, which is as long as the SharedPages.
        let pages = unsafe SharedPages(
            base: shared.unsafeAddress(at: 0, count: SharedPages.pageSize),
            byteCount: SharedPages.pageSize
        ) { _ = shared }
        let count = BackRing.slots(pageCount: 1, stride: abi.requestSize)
        templates = try PrivatePages(byteCount: (count + 1) * 128)
        response = templates.slot(at: count * 128, byteCount: 128)
        for index in 0..<count {
            mix.encode(index, into: templates.slot(at: index * 128, byteCount: abi.requestSize), abi: abi)
        }
        self.pages = pages
        self.count = count
        self.abi = abi
        front = FrontRing(pages: pages, stride: abi.requestSize)
    }

    /// Requests of one turn: a full ring.
    var batch: Int { count }

    mutating func fill() {
        for index in 0..<count {
            front.put(request: templates.slot(at: index * 128, byteCount: abi.requestSize), count: abi.requestSize)
        }
        _ = front.push()
    }

    /// Takes all answers of a turn.
    /// - Returns: whether each request has one, in order, and it is okay.
    mutating func check() throws -> Bool {
        guard Int(try front.poll()) == count else { return false }
        var isRight = true
        for index in 0..<count {
            front.takeNext(into: response, count: abi.responseSize)
            isRight = isRight && BlockResponse(decoding: response)?.status == .okay && response.u64(0) == UInt64(index)
        }
        _ = try front.lastLook()
        return isRight
    }
}
