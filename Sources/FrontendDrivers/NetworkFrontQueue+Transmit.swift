// Packets into the transmit ring, and their answers.

internal import Hypervisor
internal import SharedRing
internal import XenWire

extension NetworkFrontQueue {
    /// Lays a packet into free pages and puts it into the ring; `push` shows it to the backend.
    /// - Parameters:
    ///   - bytes: where the packet is, from `offset`.
    ///   - answer: resumed with the worst status of its slots, or when the queue closes.
    /// - Returns: false if there is no room for it now; nothing happened.
    func put(
        _ frame: NetworkFrame,
        _ bytes: PrivatePages,
        at offset: Int,
        count: Int,
        answer: CheckedContinuation<Outcome, Never>? = nil
    ) -> Bool {
        let slots = frame.slotCount(count)
        guard hasRoom(for: frame, count) else { return false }
        let capacity = frame.capacity
        let head = freeIDs[freeIDs.count - 1]
        var done = 0
        for slot in 0..<slots {
            let id = freeIDs.removeLast()
            let piece = min(capacity, count - done)
            let place = Int(id) * SharedPages.pageSize + frame.pageOffset
            transmitPages.pages.copyIn(at: place, count: piece, from: bytes, at: offset + done)
            var flags: TransmitFlags = slot < slots - 1 ? .moreData : []
            if slot == 0 {
                flags.formUnion(frame.flags)
                if frame.extraCount > 0 { flags.insert(.extraInfo) }
            }
            let words = TransmitRequest<Slot>.words(
                transmitPages.references[Int(id)],
                offset: UInt16(frame.pageOffset),
                flags: flags,
                id: id,
                size: UInt16(slot == 0 ? count : piece)
            )
            transmitRing.put(words, count: NetWire.transmitStride)
            if slot == 0 { putExtras(frame) }
            heads[Int(id)] = head
            done += piece
        }
        packets[Int(head)] = PacketInFlight(slotsLeft: slots, status: 0, answer: answer)
        statistics.sentPackets += 1
        statistics.sentBytes += UInt64(count)
        statistics.sentSlots += UInt64(slots + frame.extraCount)
        return true
    }

    func hasRoom(for frame: NetworkFrame, _ count: Int) -> Bool {
        let slots = frame.slotCount(count)
        return !isClosed && freeIDs.count >= slots && Int(transmitRing.free) >= slots + frame.extraCount
    }

    /// Resumes as soon as there is room, or the queue closes. Answers may have arrived while the continuation was made,
    /// so check again.
    func waitForRoom(_ frame: NetworkFrame, _ count: Int, _ continuation: CheckedContinuation<Void, Never>) {
        if isClosed || hasRoom(for: frame, count) {
            continuation.resume()
        } else {
            waiting.append(continuation)
        }
    }

    private func putExtras(_ frame: NetworkFrame) {
        let extras = frame.segmentation.map { frame.extras + [.segmentation($0)] } ?? frame.extras
        for (place, extra) in extras.enumerated() {
            let words = WireWords(low: extra.word(more: place < extras.count - 1), high: 0)
            transmitRing.put(words, count: NetWire.transmitStride)
        }
    }

    /// Makes what was put visible to the backend.
    func push() {
        if transmitRing.push() { notify(transmitPort) }
    }

    /// Takes all answers and arms the ring for the next event (xen-netfront.c, `xennet_tx_buf_gc`).
    func takeAnswers() throws(FrontendFailure) {
        var count = try look(&transmitRing) { (ring) throws(ResponseProducerFault) in try ring.poll() }
        while count > 0 {
            while transmitRing.waiting > 0 { try takeAnswer() }
            count = try look(&transmitRing) { (ring) throws(ResponseProducerFault) in try ring.lastLook() }
        }
        guard !waiting.isEmpty else { return }
        let waiters = waiting
        waiting = []
        for waiter in waiters { waiter.resume() }
    }

    private func takeAnswer() throws(FrontendFailure) {
        let slot = scratch.slot(at: 0, byteCount: NetWire.transmitStride)
        transmitRing.takeNext(into: slot, count: NetWire.transmitResponseSize)
        let response = TransmitResponse(decoding: slot)
        if response.status == TransmitStatus.null.rawValue { return }
        let id = Int(response.id)
        guard id < heads.count, let head = heads[id].map(Int.init) else { throw .badResponse(id: UInt64(id)) }
        heads[id] = nil
        freeIDs.append(response.id)
        packets[head].slotsLeft -= 1
        packets[head].status = min(packets[head].status, response.status)
        guard packets[head].slotsLeft == 0 else { return }
        if packets[head].status < 0 { statistics.failedPackets += 1 }
        packets[head].answer?.resume(returning: .answered(packets[head].status))
        packets[head].answer = nil
    }
}
