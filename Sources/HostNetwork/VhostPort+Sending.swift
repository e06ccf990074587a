// Packets to the host: placed one behind the other in an area that goes round, described, given to the kernel.

public import HostIO
public import SharedRing

extension VhostPort {
    private static var mask: Int { areaBytes - 1 }

    public var progress: (waiting: Int, done: UInt64) { (transmit.outstanding, doneCount) }

    public func beginSending() throws(HostFailure) {
        transmit.silence()
        placed = 0
        try takeBack()
        if transmit.outstanding == 0 { tail = position }
        turnStart = position
    }

    /// Takes back what the kernel has sent.
    private func takeBack() throws(HostFailure) {
        do throws(SplitRingFault) {
            let count = try transmit.usedCount()
            for index in 0..<count {
                let packet = sent[(firstSent &+ index) & (VhostPort.ringSize - 1)]
                _ = try transmit.usedBytes(index, head: packet.head)
                descriptorsInUse &-= packet.descriptors
                tail = packet.end
            }
            transmit.take(count)
            firstSent &+= count
            doneCount &+= UInt64(truncatingIfNeeded: count)
        } catch {
            throw HostFailure(.host, "vhost-net broke the transmit ring: \(error)")
        }
    }

    private var fits: Bool {
        VhostPort.areaBytes &- (position &- tail) >= VhostPort.packetBytes
            && VhostPort.ringSize &- descriptorsInUse &- placed >= VhostPort.packetDescriptors
    }

    public var room: PacketRoom {
        position &- turnStart >= PacketMemory.turnBytes ? .notInThisTurn : fits ? .some : .none
    }

    public func place(_ count: Int, isFirst: Bool) -> Int {
        var start = (position &+ 15) & ~15
        // The header is right before the first piece.
        if isFirst { start &+= 16 }
        if start & (VhostPort.page - 1) &+ count > VhostPort.page {
            start = (start &+ VhostPort.page &- 1) & ~(VhostPort.page - 1)
        }
        position = start &+ count
        placed &+= 1
        guard isFirst else { return start & VhostPort.mask }
        // The header may be at the area's end; the piece is then in the second mapping.
        return (start &- VhostPort.headerBytes) & VhostPort.mask &+ VhostPort.headerBytes
    }

    public func beginPacket(first: Int) -> Slot {
        head = nextDescriptor
        run = (first &- VhostPort.headerBytes, VhostPort.headerBytes)
        let slot = sendPages.slot(at: run.offset, byteCount: VhostPort.headerBytes)
        slot.set16(0, at: 10)
        return slot
    }

    public func add(_ offset: Int, _ byteCount: Int) {
        lastPiece = (offset, byteCount)
        if (run.offset &+ run.byteCount) & VhostPort.mask == offset & VhostPort.mask {
            run.byteCount &+= byteCount
            return
        }
        describe(isLast: false)
        run = (offset, byteCount)
    }

    public func endPacket() {
        describe(isLast: true)
        let index = (firstSent &+ transmit.outstanding) & (VhostPort.ringSize - 1)
        let descriptors = (nextDescriptor &- head) & (VhostPort.ringSize - 1)
        // The last place with this offset at or before `position`.
        let start = position &- (position &- lastPiece.offset) & VhostPort.mask
        sent[index] = SentPacket(head: head, descriptors: descriptors, end: start &+ lastPiece.byteCount)
        descriptorsInUse &+= descriptors
        transmit.add(head: head)
    }

    private func describe(isLast: Bool) {
        let next = (nextDescriptor &+ 1) & (VhostPort.ringSize - 1)
        transmit.setDescriptor(
            nextDescriptor,
            address: VhostPort.sendName &+ UInt64(truncatingIfNeeded: run.offset),
            byteCount: run.byteCount,
            isWritable: false,
            next: isLast ? nil : next
        )
        nextDescriptor = next
    }

    public func send() {
        placed = 0
        if transmit.publish() { kick(.transmit) }
    }

    /// The kernel does not say what became of a packet.
    public func result(_ index: Int) -> Int32 { 1 }

    public func lastLookForRoom() throws(HostFailure) -> Bool {
        if fits { return true }
        // When half of them are sent, so that there is room for more than one then.
        let count = max(1, transmit.outstanding / 2)
        do throws(SplitRingFault) { return try transmit.lastLook(for: count) >= count } catch {
            throw HostFailure(.host, "vhost-net broke the transmit ring: \(error)")
        }
    }
}
