// Packets through a queue's own descriptor: a system call for each batch, or where the kernel is older, for each packet.

internal import HostIO
public import SharedRing
internal import SystemPackage

/// The way that works with every interface.
public final class PlainPort: PacketPort {
    private let queue: PacketQueue
    private let memory: PacketMemory
    private var isReadable = true
    /// One packet that found too few slots, in memory of its own.
    private var kept: (pages: PrivatePages, byteCount: Int)?
    private var isKeeping = false
    /// The only packet of this turn is the one that was kept.
    private var isFromKept = false
    private static let keptFrame = 16

    /// - Parameter memory: of the loop that the port belongs to.
    public init(_ queue: PacketQueue, _ memory: PacketMemory) {
        self.queue = queue
        self.memory = memory
    }

    // MARK: to the host

    public var sendPages: PrivatePages { memory.frames }
    public var roomDescriptor: CInt? { nil }
    public var progress: (waiting: Int, done: UInt64) { (0, 0) }

    public func beginSending() {
        memory.cursor = 0
        memory.batch.removeAll()
    }

    public var room: PacketRoom { memory.cursor < PacketMemory.turnBytes ? .some : .notInThisTurn }

    public func place(_ count: Int, isFirst: Bool) -> Int {
        let left = 4096 &- memory.cursor & 4095
        if count > left { memory.cursor &+= left }
        defer { memory.cursor = (memory.cursor &+ count &+ 15) & ~15 }
        return memory.cursor
    }

    public func beginPacket(first: Int) -> Slot {
        let offset = memory.batch.packetCount &* PacketMemory.headerStride
        memory.batch.beginPacket()
        memory.batch.add(memory.headers, offset: offset, byteCount: PacketQueue.headerBytes)
        return memory.headers.slot(at: offset, byteCount: PacketQueue.headerBytes)
    }

    public func add(_ offset: Int, _ byteCount: Int) {
        memory.batch.add(memory.frames, offset: offset, byteCount: byteCount)
    }

    public func endPacket() {}

    public func send() {
        if memory.batch.packetCount > 0 { memory.batch.send(to: queue) }
    }

    public func result(_ index: Int) -> Int32 { memory.batch.result(index) }

    public func lastLookForRoom() -> Bool { true }

    // MARK: from the host

    public var receivePages: PrivatePages { memory.frames }
    public var receiveHeaders: PrivatePages { memory.headers }
    public var lead: Int { 0 }
    public var keepsAll: Bool { false }
    public private(set) var receiveError: Int32 = 0
    public var receiveDescriptor: CInt { queue.file.descriptor }

    public func mayHaveInput() { isReadable = true }

    public var hasMore: Bool { isReadable || isKeeping }

    public func receive(upTo limit: Int) -> Int {
        receiveError = 0
        isFromKept = isKeeping
        if isKeeping, let kept {
            isKeeping = false
            memory.headers.copy(from: kept.pages, at: 0, count: PacketQueue.headerBytes, to: 0)
            memory.frames.copy(from: kept.pages, at: PlainPort.keptFrame, count: kept.byteCount, to: 0)
            return 1
        }
        guard isReadable else { return 0 }
        memory.batch.removeAll()
        for index in 0..<min(limit, PacketMemory.packets) {
            memory.batch.beginPacket()
            memory.batch.add(
                memory.headers,
                offset: index &* PacketMemory.headerStride,
                byteCount: PacketQueue.headerBytes
            )
            memory.batch.add(
                memory.frames,
                offset: index &* PacketMemory.frameBytes,
                byteCount: PacketMemory.frameBytes
            )
        }
        let found = memory.batch.receive(from: queue)
        isReadable = !memory.batch.isDry
        for index in 0..<found where memory.batch.result(index) < 0 { receiveError = memory.batch.result(index) }
        return found
    }

    public func packet(_ index: Int) -> ReceivedPacket? {
        let byteCount: Int
        if isFromKept {
            byteCount = kept?.byteCount ?? 0
        } else {
            byteCount = Int(memory.batch.result(index)) &- PacketQueue.headerBytes
        }
        guard byteCount > 0 else { return nil }
        return ReceivedPacket(
            header: index &* PacketMemory.headerStride,
            frame: index &* PacketMemory.frameBytes,
            byteCount: byteCount
        )
    }

    public func keep(from index: Int) -> Int {
        guard let packet = packet(index) else { return 0 }
        let others = isFromKept ? 0 : memory.batch.packetCount &- index &- 1
        if kept == nil {
            let room = PacketMemory.frameBytes &+ PlainPort.keptFrame
            guard let pages = try? PrivatePages(byteCount: room) else { return 1 &+ others }
            kept = (pages, 0)
        }
        kept?.pages.copy(from: memory.headers, at: packet.header, count: PacketQueue.headerBytes, to: 0)
        kept?.pages.copy(from: memory.frames, at: packet.frame, count: packet.byteCount, to: PlainPort.keptFrame)
        kept?.byteCount = packet.byteCount
        isKeeping = true
        return (0..<others).count { self.packet(index &+ 1 &+ $0) != nil }
    }

    public func endReceiving(slots: Int) {}

    /// The loop watches the descriptor.
    public func lastLookForPackets() -> Bool { hasMore }

    /// Nobody can tell.
    public var isStarved: Bool { true }

    // MARK: life

    public var errorDescriptor: CInt? { nil }
    public func takeError() -> Bool { false }
    public func look() -> CInt { 0 }
    public func close() {}
}
