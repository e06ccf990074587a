// The frontend's packets: ring → packet → copies → host → responses, a batch at a time.

internal import BackendCore
internal import HostNetwork
internal import Hypervisor
internal import SharedRing
internal import XenWire

/// The transmit ring of one queue with its journal. Owned by the queue, passed on `inout` once per batch.
///
/// A turn is synchronous from the request to the response, and responses go out in ring order: the ring and one word
/// of the journal tell a successor what is unanswered.
struct NetTransmit: ~Copyable {
    private let facts: NetQueueFacts
    private var ring: OrderedRing
    private var parser = TransmitParser()
    private let device: PacketQueue
    /// The last turn ran out of credit: nothing may be sent for this long.
    private(set) var pause: Duration?
    /// Bytes of the last packet, which must be paid for before the next is taken.
    private var unpaid = 0
    var metrics = NetMetrics()
    var log: FaultLog

    private static let format = SlotFormat(
        requestBytes: NetWire.transmitStride,
        responseBytes: NetWire.transmitResponseSize
    )

    /// - Parameter isTakeover: go on where a predecessor's answers ended.
    init(
        _ facts: NetQueueFacts,
        pages: SharedPages,
        journal: consuming RingJournal,
        device: PacketQueue,
        log: FaultLog,
        isTakeover: Bool
    ) throws(JournalFault) {
        ring = try OrderedRing(pages, NetTransmit.format, journal: journal, isTakeover: isTakeover)
        self.facts = facts
        self.device = device
        self.log = log
    }

    /// Answers what a predecessor took and did not answer. Those packets are dropped, as a network may do.
    mutating func answerLost() throws(JournalFault) {
        guard ring.unanswered > 0 else { return }
        var index = ring.responseProducer
        let end = index &+ ring.unanswered
        while index != end {
            do throws(NetRingFault) {
                let step = try parser.feed(ring.request(index))
                index &+= 1
                if step == .needsMore { continue }
            } catch {
                throw .damaged(slot: Int(index & 255))
            }
            for slot in 0..<parser.slotCount {
                ring.put(parser.response(toSlot: slot, .dropped))
            }
        }
        _ = ring.publish()
    }

    /// One batch. The frontend has its answers as soon as we have its bytes: it makes its next packets while the host's
    /// stack, which a TAP runs in the call that writes to it, works on these.
    ///
    /// A turn that ran out of credit is idle, with a `pause`.
    mutating func turn(_ scratch: NetScratch, notify: () -> Void) -> TurnEnd {
        metrics.transmitTurns &+= 1
        scratch.clear()
        pause = nil
        do throws(Breakdown) {
            if try ring.poll() == 0 { return try sleep(worked: false) }
            let isAll = try gather(scratch)
            ring.commit()
            copy(scratch)
            stage(scratch)
            answer(scratch, notify: notify)
            send(scratch)
            // Not before: a crash in the call to the host must not count as progress.
            if !scratch.transmit.isEmpty { facts.mark.device?.progressed() }
            if pause != nil { return .idle(worked: true) }
            return isAll ? try sleep(worked: true) : .more
        } catch {
            // The copies of the packets before the one that broke the ring are still in the loop's batch, which the
            // next queue fills.
            facts.data.copies.clear()
            return .broken(error)
        }
    }

    private mutating func sleep(worked: Bool) throws(Breakdown) -> TurnEnd {
        if !worked { metrics.idleTurns &+= 1 }
        return try ring.lastLook() == 0 ? .idle(worked: worked) : .more
    }

    // MARK: ring → packets and copies

    /// - Returns: whether that was all that waited.
    private mutating func gather(_ scratch: NetScratch) throws(Breakdown) -> Bool {
        while ring.waiting != 0 {
            guard scratch.hasRoom(facts.data.copies) else { return false }
            if unpaid > 0, let pause = facts.shared.pay(unpaid) {
                metrics.transmitThrottled &+= 1
                self.pause = pause
                return false
            }
            unpaid = 0
            try takePacket(scratch)
        }
        return true
    }

    /// Takes the slots of one packet. The journal keeps the only copies that are looked at.
    private mutating func takePacket(_ scratch: NetScratch) throws(Breakdown) {
        let first = ring.requestConsumer
        var step = TransmitParser.Step.needsMore
        while step == .needsMore {
            let isShort = ring.waiting == 0 ? try ring.poll() == 0 : false
            do throws(NetRingFault) {
                if isShort { return try parser.ended() }
                step = try parser.feed(ring.take())
            } catch {
                throw .frontend("queue \(facts.index): \(error)")
            }
        }
        var record = TransmitRecord(
            first: first,
            slotCount: UInt32(truncatingIfNeeded: parser.slotCount),
            extraCount: UInt32(truncatingIfNeeded: parser.extraCount)
        )
        switch step {
        case .packet: place(&record, scratch)
        case .multicast(let request):
            record.status = facts.shared.change(request)
        case .dropped(let fault):
            record.status = .error
            metrics.transmitFaults &+= 1
            log.fault("queue \(facts.index): a packet is dropped: \(fault)")
        case .needsMore: break
        }
        scratch.transmit.append(record)
    }

    private mutating func place(_ record: inout TransmitRecord, _ scratch: NetScratch) {
        record.byteCount = parser.byteCount
        record.flags = parser.flags
        record.segmentation = parser.segmentation
        record.pieceStart = scratch.pieces.count
        record.pieceCount = parser.fragmentCount
        for index in 0..<parser.fragmentCount {
            let fragment = parser.fragment(index)
            let offset = scratch.place(Int(fragment.byteCount))
            facts.data.copies.add(
                reference: fragment.reference,
                pageOffset: fragment.offset,
                byteCount: fragment.byteCount,
                intoGrant: false,
                pages: scratch.frames,
                privateOffset: offset
            )
            scratch.pieces.append((offset, Int(fragment.byteCount)))
        }
        if facts.shared.isLimited { unpaid = parser.byteCount }
    }

    // MARK: copies → host

    /// Runs the batch. A packet is dropped if any of its copies fails.
    private mutating func copy(_ scratch: NetScratch) {
        var (index, lost) = (0, UInt64(0))
        var failure: CopyFailure?
        let count = facts.data.runCopies(facts.grants, with: facts.path.domain) { copy, reason in
            // Failures come in the order of the copies, which is that of the packets.
            while !scratch.transmit[index].hasPiece(copy) { index &+= 1 }
            guard scratch.transmit[index].status == .okay else { return }
            scratch.transmit[index].status = .error
            lost &+= 1
            failure = failure ?? reason
        }
        switch failure {
        case .grant(let status)?:
            metrics.transmitFaults &+= lost
            log.fault("queue \(facts.index): a packet's grant cannot be read: status \(status.rawValue)")
        case .hypervisor(let failure)?:
            metrics.transmitRefused &+= lost
            log.failure("cannot copy packets: \(failure)")
        case nil: break
        }
        if count > 0 { metrics.count(copies: count) }
    }

    private mutating func stage(_ scratch: NetScratch) {
        for index in scratch.transmit.indices where scratch.transmit[index].pieceCount > 0 {
            if scratch.transmit[index].status == .okay { stage(index, scratch) }
        }
    }

    private mutating func send(_ scratch: NetScratch) {
        guard scratch.batch.packetCount > 0 else { return }
        scratch.batch.send(to: device)
        for record in scratch.transmit where record.place >= 0 {
            let result = scratch.batch.result(record.place)
            if result > 0 {
                metrics.transmitPackets &+= 1
                metrics.transmitBytes &+= UInt64(truncatingIfNeeded: record.byteCount)
                if record.segmentation != nil { metrics.transmitSegmented &+= 1 }
            } else {
                metrics.transmitRefused &+= 1
                facts.refused(result)
            }
        }
    }

    /// Puts a packet into the batch to the host, behind a header that says what is to be done with it.
    private mutating func stage(_ index: Int, _ scratch: NetScratch) {
        let record = scratch.transmit[index]
        let place = scratch.batch.packetCount
        do throws(OffloadFault) {
            let header = try NetPipeline.transmit(record, scratch)
            header.encode(into: scratch.headers.slot(at: NetScratch.header(place), byteCount: PacketQueue.headerBytes))
        } catch {
            scratch.transmit[index].status = .error
            metrics.transmitFaults &+= 1
            log.fault("queue \(facts.index): a packet is dropped: \(error)")
            return
        }
        scratch.transmit[index].place = place
        scratch.batch.beginPacket()
        scratch.batch.add(
            scratch.headers,
            offset: NetScratch.header(place),
            byteCount: PacketQueue.headerBytes
        )
        for piece in record.pieceStart..<record.pieceStart &+ record.pieceCount {
            let (offset, byteCount) = scratch.pieces[piece]
            scratch.batch.add(scratch.frames, offset: offset, byteCount: byteCount)
        }
    }

    // MARK: responses

    private mutating func answer(_ scratch: NetScratch, notify: () -> Void) {
        guard !scratch.transmit.isEmpty else { return }
        for record in scratch.transmit {
            for number in 0..<record.slotCount {
                let isExtra = number != 0 && number <= record.extraCount
                let request = TransmitRequest(ring.request(record.first &+ number))
                ring.put(
                    TransmitResponse.words(id: isExtra ? 0 : request.id, status: isExtra ? .null : record.status)
                )
            }
        }
        let asked = ring.publish()
        metrics.notified(asked)
        if asked { notify() }
    }
}
