// What one turn takes off a link: packets, each in one piece of private memory.

public import SharedRing
public import SystemPackage
public import XenWire

/// A packet that was taken.
public struct NetChannel2TakenPacket: Sendable {
    public let packet: NetChannel2Packet
    /// Where it lies in `NetChannel2Intake.memory`, all of its `packet.byteCount` bytes in one piece.
    public let offset: Int
    /// Its copies in the batch.
    let firstCopy: Int
    let copyCount: Int
    /// Whether it may be delivered; what may not is finished like the others.
    public internal(set) var isWhole: Bool

    func hasCopy(_ copy: Int) -> Bool { copy >= firstCopy && copy < firstCopy &+ copyCount }
}

/// Private memory and a list, reused by turn after turn. Nothing is allocated after `init`; the memory becomes resident as
/// it is used.
public struct NetChannel2Intake: ~Copyable {
    /// Packets that one turn takes.
    public static let maxPackets = 64
    /// Bytes after which a turn takes no further packet, so that large packets get no more of a loop's time than small
    /// ones.
    public static let turnBytes = 256 * 1024
    /// Room of one message.
    private static let messageStride = 512
    private static let framesStart = maxPackets * messageStride
    /// The largest packet begins anywhere in a page, and may need all the rest of it for its prefix.
    private static let frameRoom = NetChannel2Wire.maxPacket + 3 * NetChannel2Wire.pageSize

    /// Messages, and behind them what was copied.
    public let memory: PrivatePages
    public private(set) var packets: [NetChannel2TakenPacket] = []
    private var cursor = framesStart

    /// - Throws: `ENOMEM`.
    public init() throws(Errno) {
        memory = try PrivatePages(
            byteCount: NetChannel2Intake.framesStart + NetChannel2Intake.turnBytes + NetChannel2Intake.frameRoom
        )
        packets.reserveCapacity(NetChannel2Intake.maxPackets)
    }

    /// Forgets the last turn's packets.
    public mutating func clear() {
        packets.removeAll(keepingCapacity: true)
        cursor = NetChannel2Intake.framesStart
    }

    /// Whether another packet fits, whatever its size.
    func hasRoom(_ copies: borrowing GrantCopyBatch) -> Bool {
        packets.count < NetChannel2Intake.maxPackets
            && cursor < NetChannel2Intake.framesStart &+ NetChannel2Intake.turnBytes
            && copies.count &+ NetChannel2Wire.maxFragments <= copies.capacity
    }

    /// Where the next message is copied to.
    var nextMessage: Slot {
        memory.slot(
            at: packets.count &* NetChannel2Intake.messageStride,
            byteCount: NetChannel2Intake.messageStride
        )
    }

    /// Adds the packet whose message is in `nextMessage`, and the copies that it needs.
    mutating func add(_ packet: NetChannel2Packet, isRefused: Bool, copies: inout GrantCopyBatch) {
        let message = packets.count &* NetChannel2Intake.messageStride
        let firstCopy = copies.count
        var offset = message &+ packet.prefixOffset
        if packet.fragmentCount > 0, !isRefused { offset = place(packet, message: message, &copies) }
        packets.append(
            NetChannel2TakenPacket(
                packet: packet,
                offset: offset,
                firstCopy: firstCopy,
                copyCount: copies.count &- firstCopy,
                isWhole: !isRefused
            )
        )
    }

    /// - Returns: where the packet will be once the copies are made.
    private mutating func place(_ packet: NetChannel2Packet, message: Int, _ copies: inout GrantCopyBatch) -> Int {
        let bytes = memory.slot(at: message, byteCount: packet.messageSize)
        let first = Int(packet.fragment(0, in: bytes).size)
        let page = NetChannel2Wire.pageSize
        // A copy into one page is one operation for Xen; so the first fragment, and with it all full pages after it,
        // does not go beyond a page that it need not.
        var body = cursor &+ packet.prefixSize
        if body & (page &- 1) &+ first > page { body = (body &+ page &- 1) & ~(page &- 1) }
        let start = body &- packet.prefixSize
        memory.copy(from: memory, at: message &+ packet.prefixOffset, count: packet.prefixSize, to: start)
        for index in 0..<packet.fragmentCount {
            let fragment = packet.fragment(index, in: bytes)
            copies.add(
                reference: fragment.reference,
                pageOffset: fragment.offset,
                byteCount: fragment.size,
                intoGrant: false,
                pages: memory,
                privateOffset: body
            )
            body &+= Int(fragment.size)
        }
        cursor = (body &+ 15) & ~15
        return start
    }

    /// A copy of the batch was not made. Calls come in the order of the copies.
    /// - Parameter index: the packet of the last call; 0 at first.
    /// - Returns: whether it is the first of its packet's.
    public mutating func failed(_ copy: Int, from index: inout Int) -> Bool {
        while !packets[index].hasCopy(copy) { index &+= 1 }
        defer { packets[index].isWhole = false }
        return packets[index].isWhole
    }
}
