// What all netchannel2 queues of one data loop share between two turns.

internal import BackendCore
internal import HostNetwork
internal import NetChannel2
internal import SharedRing
internal import SystemPackage
internal import XenWire

/// A turn never suspends, so between turns nobody owns it.
final class NetChannel2Scratch: @unchecked Sendable {
    private static let headerStride = 16

    var intake: NetChannel2Intake
    /// To the host.
    var batch: PacketBatch
    let headers: PrivatePages
    /// For each packet of the batch, its bytes.
    var byteCounts: [Int] = []

    init() throws(BackendFailure) {
        do throws(Errno) {
            intake = try NetChannel2Intake()
            headers = try PrivatePages(byteCount: NetChannel2Intake.maxPackets * NetChannel2Scratch.headerStride)
            batch = try PacketBatch(
                packets: NetChannel2Intake.maxPackets,
                runs: NetChannel2Intake.maxPackets * 2
            )
        } catch {
            throw BackendFailure(.host, "no memory for packets: \(error)")
        }
        byteCounts.reserveCapacity(NetChannel2Intake.maxPackets)
    }

    func clear() {
        intake.clear()
        batch.removeAll()
        byteCounts.removeAll(keepingCapacity: true)
    }

    /// Puts a packet of the intake into the batch, behind a header.
    func stage(_ header: VirtioNetHeader, offset: Int, byteCount: Int) {
        let place = batch.packetCount &* NetChannel2Scratch.headerStride
        header.encode(into: headers.slot(at: place, byteCount: VirtioNetHeader.byteCount))
        batch.beginPacket()
        batch.add(headers, offset: place, byteCount: PacketQueue.headerBytes)
        batch.add(intake.memory, offset: offset, byteCount: byteCount)
        byteCounts.append(byteCount)
    }
}

/// Packets of the host that a queue has read and not sent yet. Its own: they stay while the frontend takes none.
final class NetChannel2Backlog {
    /// Packets that are read at once.
    static let packets = 32
    private static let headerStride = 16
    private static let frameBytes = NetWire.pages(of: NetWire.maxReceivedFrame) * NetWire.pageSize

    let frames: PrivatePages
    private let headers: PrivatePages
    private var batch: PacketBatch
    private var next = 0
    private var count = 0

    init() throws(BackendFailure) {
        do throws(Errno) {
            frames = try PrivatePages(byteCount: NetChannel2Backlog.packets * NetChannel2Backlog.frameBytes)
            headers = try PrivatePages(byteCount: NetChannel2Backlog.packets * NetChannel2Backlog.headerStride)
            batch = try PacketBatch(packets: NetChannel2Backlog.packets, runs: 2 * NetChannel2Backlog.packets)
        } catch {
            throw BackendFailure(.host, "no memory for packets: \(error)")
        }
    }

    /// Packets that wait.
    var waiting: Int { count &- next }

    /// Reads packets, as many as there are and fit. Only while none waits.
    /// - Parameter refused: called with each result that says that a packet could not be read.
    /// - Returns: whether the interface may have more.
    func read(from device: PacketQueue, refused: (Int32) -> Void) -> Bool {
        batch.removeAll()
        for index in 0..<NetChannel2Backlog.packets {
            batch.beginPacket()
            batch.add(
                headers,
                offset: index &* NetChannel2Backlog.headerStride,
                byteCount: PacketQueue.headerBytes
            )
            batch.add(
                frames,
                offset: index &* NetChannel2Backlog.frameBytes,
                byteCount: NetChannel2Backlog.frameBytes
            )
        }
        next = 0
        count = batch.receive(from: device)
        for index in 0..<count where batch.result(index) < 0 { refused(batch.result(index)) }
        return !batch.isDry
    }

    /// The first packet that waits.
    /// - Returns: nil if it was no packet, and is to be dropped.
    func first() -> (header: VirtioNetHeader, offset: Int, byteCount: Int)? {
        let result = Int(batch.result(next))
        guard result > PacketQueue.headerBytes else { return nil }
        let header = headers.slot(
            at: next &* NetChannel2Backlog.headerStride,
            byteCount: VirtioNetHeader.byteCount
        )
        return (
            VirtioNetHeader(decoding: header), next &* NetChannel2Backlog.frameBytes,
            result &- PacketQueue.headerBytes
        )
    }

    func dropFirst() { next &+= 1 }

    /// Drops all that waits.
    /// - Returns: how many.
    func dropAll() -> Int {
        defer { next = count }
        return waiting
    }
}
