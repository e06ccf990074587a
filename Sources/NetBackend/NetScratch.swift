// What all queues of one data loop share between two turns: memory for frames, and lists that keep their capacity.

internal import BackendCore
internal import HostNetwork
internal import SharedRing
internal import SystemPackage
internal import XenWire

/// A packet on its way from a transmit ring to the host.
struct TransmitRecord {
    /// Ring index of its first slot.
    var first: UInt32
    /// Slots to answer, extras included.
    var slotCount: UInt32
    var extraCount: UInt32
    var byteCount = 0
    var flags: TransmitFlags = []
    var segmentation: Segmentation?
    /// Its pieces in `NetScratch.pieces`; its copies have the same indices in the batch.
    var pieceStart = 0
    var pieceCount = 0
    var status: TransmitStatus = .okay
    /// Its place in the batch to the host; -1: it is not sent.
    var place = -1

    /// Whether a copy of the batch belongs to it.
    func hasPiece(_ copy: Int) -> Bool { copy >= pieceStart && copy < pieceStart &+ pieceCount }
}

/// A packet on its way from the host into a receive ring.
struct ReceiveRecord {
    /// Ring index of its first slot.
    var first: UInt32
    var byteCount: Int
    var flags: ReceiveFlags
    var segmentation: Segmentation?
    var hash: PacketHash?
    /// Its first copy in the batch; one for each page.
    var copyStart: Int
    /// Pages whose copy was not made, a bit for each (at most 17 pages).
    var failedPages: UInt32 = 0

    /// Slots of data.
    var pageCount: Int { NetWire.pages(of: byteCount) }
    var extraCount: Int { (segmentation == nil ? 0 : 1) &+ (hash == nil ? 0 : 1) }
    var slotCount: Int { pageCount &+ extraCount }

    func hasCopy(_ copy: Int) -> Bool { copy >= copyStart && copy < copyStart &+ pageCount }
    func isWritten(_ page: Int) -> Bool { failedPages >> UInt32(truncatingIfNeeded: page) & 1 == 0 }
    mutating func markFailed(_ copy: Int) { failedPages |= 1 << UInt32(truncatingIfNeeded: copy &- copyStart) }
}

/// Frames and lists of one loop's turns. A turn never suspends, so between turns nobody owns them.
final class NetScratch: @unchecked Sendable {
    /// Packets that one turn carries in one direction.
    static let packets = 64
    /// Bytes after which a turn takes no further packet from a frontend, so that a queue with large packets gets no
    /// more of the loop's time than its neighbours with small ones.
    static let turnBytes = 256 * 1024
    /// Packets from other queues that one turn takes.
    static let steeredPackets = 16
    /// Room for the largest frame (`NetWire.maxReceivedFrame`), in whole pages.
    static let frameBytes = NetWire.pages(of: NetWire.maxReceivedFrame) * NetWire.pageSize
    /// Room of one `virtio_net_hdr`.
    static let headerStride = 16
    /// Where scattered headers are gathered to be inspected.
    static let gatherBytes = 512

    /// Becomes resident as it is used: an idle card touches a few pages.
    let frames: PrivatePages
    let headers: PrivatePages
    var batch: PacketBatch
    /// Bytes of packets in `frames`: (offset, bytes).
    var pieces: [(offset: Int, byteCount: Int)] = []
    var transmit: [TransmitRecord] = []
    var receive: [ReceiveRecord] = []
    private var cursor = 0

    init() throws(BackendFailure) {
        do throws(Errno) {
            frames = try PrivatePages(byteCount: NetScratch.places * NetScratch.frameBytes)
            headers = try PrivatePages(byteCount: NetScratch.gather + NetScratch.gatherBytes)
            batch = try PacketBatch(
                packets: NetScratch.packets,
                runs: NetScratch.packets * PacketBatch.runsPerPacket
            )
        } catch {
            throw BackendFailure(.host, "no memory for packets: \(error)")
        }
        pieces.reserveCapacity(1024)
        transmit.reserveCapacity(NetScratch.packets)
        receive.reserveCapacity(NetScratch.packets)
    }

    func clear() {
        pieces.removeAll(keepingCapacity: true)
        transmit.removeAll(keepingCapacity: true)
        receive.removeAll(keepingCapacity: true)
        batch.removeAll()
        cursor = 0
    }

    /// Whether another packet of any size fits, and this turn may still take it.
    func hasRoom(_ copies: borrowing GrantCopyBatch) -> Bool {
        transmit.count < NetScratch.packets
            && cursor < NetScratch.turnBytes
            && copies.count &+ NetWire.maxFurtherSlots &+ 1 <= copies.capacity
    }

    /// A place for `count` bytes (1 … 4096) inside one page: a copy that crosses no page boundary is one operation for
    /// Xen.
    func place(_ count: Int) -> Int {
        let left = NetWire.pageSize &- cursor & (NetWire.pageSize &- 1)
        if count > left { cursor &+= left }
        defer { cursor = (cursor &+ count &+ 15) & ~15 }
        return cursor
    }

    /// Places for frames: a batch, a packet that was held, steered packets, and what one packet was cut into.
    private static let places = packets + 1 + steeredPackets + 1
    /// The place of a packet that was held.
    static let heldPlace = packets
    /// Where steered packets begin.
    static let steeredPlace = packets + 1
    /// Where segments are put together.
    static let cutPlace = packets + 1 + steeredPackets

    /// Where frame `index` lies.
    static func frame(_ index: Int) -> Int { index &* frameBytes }
    /// Where header `index` lies.
    static func header(_ index: Int) -> Int { index &* headerStride }
    /// What the host says, or is told, about a packet, at an offset of `headers`.
    func header(at offset: Int) -> VirtioNetHeader {
        VirtioNetHeader(decoding: headers.slot(at: offset, byteCount: VirtioNetHeader.byteCount))
    }
    /// Where scattered headers are put together.
    static var gather: Int { places &* headerStride }
}
