// Packets from the host: each in one or more of the pages that the kernel was given, one behind the other.

public import HostIO
public import SharedRing

extension VhostPort {
    public var receiveHeaders: PrivatePages { receivePages }
    public var lead: Int { VhostPort.headerBytes }
    public var keepsAll: Bool { true }
    public var receiveError: Int32 { 0 }
    public func mayHaveInput() {}
    public var isStarved: Bool { receive.wantsMore }

    public func receive(upTo limit: Int) throws(HostFailure) -> Int {
        found.removeAll(keepingCapacity: true)
        consumed = 0
        receive.silence()
        let used: Int
        do throws(SplitRingFault) { used = try receive.usedCount() } catch { throw VhostPort.broken(error) }
        var index = 0
        while found.count < limit, index < used {
            let packet = try packet(at: index, of: used)
            found.append(packet)
            index &+= packet.pages
        }
        consumed = found.count
        hasMore = index < used
        return found.count
    }

    private static func broken(_ fault: some CustomStringConvertible) -> HostFailure {
        HostFailure(.host, "vhost-net broke the receive ring: \(fault)")
    }

    /// The packet that begins with a used page. What its header says of its pages must fit what the ring says.
    private func packet(at index: Int, of used: Int) throws(HostFailure) -> (packet: ReceivedPacket, pages: Int) {
        let first = (firstPage &+ index) & (VhostPort.ringSize - 1)
        var total = try bytes(index)
        guard total > VhostPort.headerBytes else { throw VhostPort.broken("a packet of \(total) bytes") }
        // num_buffers of struct virtio_net_hdr_mrg_rxbuf.
        let start = first &* VhostPort.page
        let pages = Int(receivePages.slot(at: start, byteCount: VhostPort.headerBytes).u16(10))
        guard pages > 0, pages <= used &- index else {
            throw VhostPort.broken("a packet in \(pages) buffers, with \(used - index) used")
        }
        for next in 1..<max(pages, 1) {
            guard total == next &* VhostPort.page else {
                throw VhostPort.broken("a packet of several buffers whose number \(next) is not full")
            }
            total &+= try bytes(index &+ next)
        }
        let frame = start &+ VhostPort.headerBytes
        return (ReceivedPacket(header: start, frame: frame, byteCount: total &- VhostPort.headerBytes), pages)
    }

    /// Bytes in a used page.
    private func bytes(_ index: Int) throws(HostFailure) -> Int {
        let head = (firstPage &+ index) & (VhostPort.ringSize - 1)
        let count: UInt32
        do throws(SplitRingFault) { count = try receive.usedBytes(index, head: head) } catch {
            throw VhostPort.broken(error)
        }
        guard count <= UInt32(VhostPort.page) else { throw VhostPort.broken("\(count) bytes in a buffer of 4096") }
        return Int(count)
    }

    public func packet(_ index: Int) -> ReceivedPacket? { found[index].packet }

    public func keep(from index: Int) -> Int {
        consumed = index
        hasMore = true
        return 0
    }

    public func endReceiving(slots: Int) {
        var pages = 0
        for index in 0..<consumed { pages &+= found[index].pages }
        found.removeAll(keepingCapacity: true)
        consumed = 0
        receive.take(pages)
        firstPage &+= pages
        let wanted = min(slots, VhostPort.ringSize)
        while receive.outstanding < wanted {
            receive.add(head: nextPage & (VhostPort.ringSize - 1))
            nextPage &+= 1
        }
        if receive.publish() { kick(.receive) }
    }

    public func lastLookForPackets() throws(HostFailure) -> Bool {
        do throws(SplitRingFault) { return try receive.lastLook(for: 1) > 0 } catch { throw VhostPort.broken(error) }
    }
}
