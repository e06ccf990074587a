// The frontend's packets: ring → packet → copies → host → responses, a batch at a time.

internal import BackendCore
internal import HostNetwork
internal import Hypervisor
internal import SharedRing
internal import XenWire

/// How a turn of either direction ended.
enum NetTurnEnd {
    /// Nothing is left to do. `worked`: there was something.
    case idle(worked: Bool)
    /// There is more to do; the other queues go first.
    case more
    /// Transmit: out of credit; nothing may be sent for this long.
    case throttled(Duration)
    /// Receive: the frontend has posted too few buffers. `worked`: for some packets there were enough.
    case waiting(worked: Bool)
    case broken(Breakdown)
}

/// Why a transmit ring cannot be read any further.
private enum TransmitRingFault: Error, CustomStringConvertible {
    case ring(RingFault)
    case packet(NetRingFault)

    var description: String {
        switch self {
        case .ring(let fault): "\(fault)"
        case .packet(let fault): "\(fault)"
        }
    }
}

/// The transmit ring of one queue with its journal. Owned by the queue, given out `inout` once per batch.
///
/// A turn is synchronous from the request to the response, and responses go out in ring order: the ring and one word
/// of the journal tell a successor what is unanswered.
struct NetTransmit: ~Copyable {
    private let facts: NetQueueFacts
    private var ring: BackRing
    private var journal: RingJournal
    private var parser = TransmitParser()
    private let device: PacketQueue
    /// Bytes of the last packet, which must be paid for before the next is taken.
    private var unpaid = 0
    var metrics = NetMetrics()
    var log: FaultLog

    /// - Parameter published: where a predecessor's answers ended; nil for a new ring.
    init(
        _ facts: NetQueueFacts,
        pages: SharedPages,
        journal: consuming RingJournal,
        published: UInt32?,
        device: PacketQueue,
        log: FaultLog
    ) {
        self.facts = facts
        ring = BackRing(
            pages: pages,
            stride: NetWire.transmitStride,
            consumed: journal.consumed,
            produced: published ?? 0
        )
        self.journal = journal
        self.device = device
        self.log = log
    }

    /// Answers what a predecessor took and did not answer. Those packets are lost, as packets may be.
    mutating func answerLost() throws(JournalFault) {
        let count = try journal.unanswered(published: ring.responseProducer)
        guard count > 0 else { return }
        var index = ring.responseProducer
        let end = index &+ count
        while index != end {
            do throws(NetRingFault) {
                let step = try parser.feed(journal.slot(index))
                index &+= 1
                if step == .needsMore { continue }
            } catch {
                throw .damaged(slot: Int(index & 255))
            }
            for slot in 0..<parser.slotCount {
                ring.put(parser.response(toSlot: slot, .dropped), count: NetWire.transmitResponseSize)
            }
        }
        _ = ring.publish()
    }

    /// One batch. The frontend has its answers as soon as we have its bytes: it makes its next packets while the host's
    /// stack, which a TAP runs in the call that writes to it, works on these.
    mutating func turn(_ scratch: NetScratch, notify: () -> Void) -> NetTurnEnd {
        metrics.transmitTurns &+= 1
        scratch.begin(facts.data)
        // However the turn ends: the batch is the whole loop's, and the next queue counts its copies from 0.
        defer { facts.data.copies.clear() }
        do throws(RingFault) {
            if try ring.poll() == 0 { return try sleep(worked: false) }
        } catch {
            return .broken(.frontend("\(error)"))
        }
        let gathered = gather(scratch)
        if case .broken = gathered { return gathered }
        journal.commit(consumed: ring.requestConsumer)
        copy(scratch)
        stage(scratch)
        answer(scratch, notify: notify)
        send(scratch)
        // Only now: a crash in the call to the host must not count as progress.
        if !scratch.transmit.isEmpty { facts.mark?.progressed() }
        guard case .idle = gathered else { return gathered }
        do throws(RingFault) {
            return try sleep(worked: true)
        } catch {
            return .broken(.frontend("\(error)"))
        }
    }

    private mutating func sleep(worked: Bool) throws(RingFault) -> NetTurnEnd {
        if !worked { metrics.idleTurns &+= 1 }
        return try ring.lastLook() == 0 ? .idle(worked: worked) : .more
    }

    // MARK: ring → packets and copies

    private mutating func gather(_ scratch: NetScratch) -> NetTurnEnd {
        while ring.waiting != 0 {
            guard scratch.hasRoom(facts.data.copies) else { return .more }
            if unpaid > 0, let pause = facts.shared.pay(unpaid) {
                metrics.transmitThrottled &+= 1
                return .throttled(pause)
            }
            unpaid = 0
            do throws(TransmitRingFault) {
                try takePacket(scratch)
            } catch {
                return .broken(.frontend("queue \(facts.index): \(error)"))
            }
        }
        return .idle(worked: true)
    }

    /// Takes the slots of one packet. The journal keeps the only copies that are looked at.
    private mutating func takePacket(_ scratch: NetScratch) throws(TransmitRingFault) {
        let first = ring.requestConsumer
        var step = TransmitParser.Step.needsMore
        while step == .needsMore {
            if ring.waiting == 0, try poll() == 0 {
                do throws(NetRingFault) { try parser.ended() } catch { throw .packet(error) }
                return
            }
            let slot = journal.slot(ring.requestConsumer)
            ring.takeNext(into: slot, count: NetWire.transmitStride)
            do throws(NetRingFault) { step = try parser.feed(slot) } catch { throw .packet(error) }
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

    private mutating func poll() throws(TransmitRingFault) -> UInt32 {
        do throws(RingFault) { return try ring.poll() } catch { throw .ring(error) }
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

    /// Runs the batch; each copy has its status (XSA-361).
    private mutating func copy(_ scratch: NetScratch) {
        let count = facts.data.copies.count
        guard count > 0 else { return }
        metrics.count(copies: count)
        do throws(HypervisorFailure) {
            try facts.grants.copy(&facts.data.copies, with: facts.path.domain)
        } catch {
            log.failure("cannot copy packets: \(error)")
            for index in scratch.transmit.indices where scratch.transmit[index].pieceCount > 0 {
                scratch.transmit[index].status = .error
                metrics.transmitRefused &+= 1
            }
            return
        }
        for index in scratch.transmit.indices {
            let record = scratch.transmit[index]
            for piece in record.pieceStart..<record.pieceStart &+ record.pieceCount {
                let status = facts.data.copies.status(of: piece)
                if status == .okay { continue }
                scratch.transmit[index].status = .error
                metrics.transmitFaults &+= 1
                log.fault("queue \(facts.index): a packet's grant cannot be read: status \(status.rawValue)")
                break
            }
        }
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
                let request = TransmitRequest(journal.slot(record.first &+ number))
                ring.put(
                    TransmitResponse.words(id: isExtra ? 0 : request.id, status: isExtra ? .null : record.status),
                    count: NetWire.transmitResponseSize
                )
            }
        }
        let asked = ring.publish()
        metrics.notified(asked)
        if asked { notify() }
    }
}
