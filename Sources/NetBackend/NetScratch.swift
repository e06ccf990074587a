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
    /// Its number among those that this turn sends to the host; -1: it is not sent.
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
    /// Offset of the frame in its first page (`PacketPort.lead`).
    var lead: Int

    /// Slots of data.
    var pageCount: Int { NetWire.pages(of: lead &+ byteCount) }
    /// What is in page `page`: its bytes' offset in the page, their number, and where they begin in the frame.
    func bytes(_ page: Int) -> (offset: Int, count: Int, start: Int) {
        let offset = page == 0 ? lead : 0
        let start = page == 0 ? 0 : page &* NetWire.pageSize &- lead
        return (offset, min(NetWire.pageSize &- offset, byteCount &- start), start)
    }
    var extraCount: Int { (segmentation == nil ? 0 : 1) &+ (hash == nil ? 0 : 1) }
    var slotCount: Int { pageCount &+ extraCount }

    func hasCopy(_ copy: Int) -> Bool { copy >= copyStart && copy < copyStart &+ pageCount }
    func isWritten(_ page: Int) -> Bool { failedPages >> UInt32(truncatingIfNeeded: page) & 1 == 0 }
    mutating func markFailed(_ copy: Int) { failedPages |= 1 << UInt32(truncatingIfNeeded: copy &- copyStart) }
}

/// Lists of one loop's turns, and memory for packets that are put together. A turn never suspends, so between turns nobody
/// owns them.
final class NetScratch: @unchecked Sendable {
    /// Packets that one turn carries in one direction.
    static let packets = PacketMemory.packets
    /// Packets from other queues that one turn takes.
    static let steeredPackets = 16
    /// Room for the largest frame (`NetWire.maxReceivedFrame`), in whole pages.
    static let frameBytes = NetWire.pages(of: NetWire.maxReceivedFrame) * NetWire.pageSize
    /// Room of one `virtio_net_hdr`.
    static let headerStride = 16
    /// Where scattered headers are gathered to be inspected.
    static let gatherBytes = 512

    /// For packets that do not come from the host as they are delivered. Becomes resident as it is used.
    let frames: PrivatePages
    let headers: PrivatePages
    /// Bytes of packets in the port's `sendPages`: (offset, bytes).
    var pieces: [(offset: Int, byteCount: Int)] = []
    var transmit: [TransmitRecord] = []
    var receive: [ReceiveRecord] = []

    init() throws(BackendFailure) {
        do throws(Errno) {
            frames = try PrivatePages(byteCount: NetScratch.places * NetScratch.frameBytes)
            headers = try PrivatePages(byteCount: NetScratch.gather + NetScratch.gatherBytes)
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
    }

    /// Whether the lists and the batch have room for another packet of any size.
    func hasRoom(_ copies: borrowing GrantCopyBatch) -> Bool {
        transmit.count < NetScratch.packets && copies.count &+ NetWire.maxFurtherSlots &+ 1 <= copies.capacity
    }

    /// Places for frames: steered packets, and what one packet was cut into.
    private static let places = steeredPackets + 1
    /// Where segments are put together.
    static let cutPlace = steeredPackets

    /// Where frame `index` lies.
    static func frame(_ index: Int) -> Int { index &* frameBytes }
    /// Where header `index` lies.
    static func header(_ index: Int) -> Int { index &* headerStride }
    /// Where scattered headers are put together.
    static var gather: Int { places &* headerStride }
}
