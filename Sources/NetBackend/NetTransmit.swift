// The frontend's packets: ring → packet → copies → host → responses, a batch at a time.

internal import BackendCore
internal import HostIO
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
    var port: any PacketPort
    /// The last turn found no room at the host: the port wakes the queue when there is some.
    private(set) var isBlocked = false
    /// Why the port cannot go on; its user takes another one then.
    private(set) var portFailure: HostFailure?
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
        port: any PacketPort,
        log: FaultLog,
        isTakeover: Bool
    ) throws(JournalFault) {
        ring = try OrderedRing(pages, NetTransmit.format, journal: journal, isTakeover: isTakeover)
        self.facts = facts
        self.port = port
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
    /// A turn that ran out of credit is idle, with a `pause`; so is one that is blocked, or whose port has failed.
    mutating func turn(_ scratch: NetScratch, notify: () -> Void) -> TurnEnd {
        metrics.transmitTurns &+= 1
        scratch.clear()
        pause = nil
        isBlocked = false
        do throws(Breakdown) {
            do throws(HostFailure) { try port.beginSending() } catch { return failed(error) }
            if try ring.poll() == 0 { return try sleep(worked: false) }
            let gathered = try gather(scratch)
            ring.commit()
            copy(scratch)
            stage(scratch)
            answer(scratch, notify: notify)
            do throws(HostFailure) { try send(scratch) } catch { return failed(error) }
            // Not before: a crash in the call to the host must not count as progress.
            if !scratch.transmit.isEmpty { facts.mark.device?.progressed() }
            switch gathered {
            case .all: return try sleep(worked: true)
            case .turn: return .more
            case .credit: return .idle(worked: true)
            case .room: return block(worked: !scratch.transmit.isEmpty)
            }
        } catch {
            // The copies of the packets before the one that broke the ring are still in the loop's batch, which the
            // next queue fills.
            facts.data.copies.clear()
            return .broken(error)
        }
    }

    /// What ended the gathering of a batch.
    private enum Gathered {
        /// Nothing waits any more.
        case all
        /// The turn is as large as it may be.
        case turn
        /// There is no credit, and a `pause`.
        case credit
        /// The host has no room.
        case room
    }

    private mutating func failed(_ failure: HostFailure) -> TurnEnd {
        portFailure = failure
        return .idle(worked: true)
    }

    /// Sleeps until the host has room. The frontend's requests stay in its ring meanwhile.
    private mutating func block(worked: Bool) -> TurnEnd {
        do throws(HostFailure) {
            if try port.lastLookForRoom() { return .more }
        } catch {
            return failed(error)
        }
        metrics.transmitBlocked &+= 1
        isBlocked = true
        return .idle(worked: worked)
    }

    /// Goes on through another port.
    mutating func go(through port: any PacketPort) {
        self.port = port
        portFailure = nil
        isBlocked = false
    }

    private mutating func sleep(worked: Bool) throws(Breakdown) -> TurnEnd {
        if !worked { metrics.idleTurns &+= 1 }
        return try ring.lastLook() == 0 ? .idle(worked: worked) : .more
    }

    // MARK: ring → packets and copies

    private mutating func gather(_ scratch: NetScratch) throws(Breakdown) -> Gathered {
        while ring.waiting != 0 {
            guard scratch.hasRoom(facts.data.copies) else { return .turn }
            switch port.room {
            case .some: break
            case .notInThisTurn: return .turn
            case .none: return .room
            }
            if unpaid > 0, let pause = facts.shared.pay(unpaid) {
                metrics.transmitThrottled &+= 1
                self.pause = pause
                return .credit
            }
            unpaid = 0
            try takePacket(scratch)
        }
        return .all
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
            let offset = port.place(Int(fragment.byteCount), isFirst: index == 0)
            facts.data.copies.add(
                reference: fragment.reference,
                pageOffset: fragment.offset,
                byteCount: fragment.byteCount,
                intoGrant: false,
                pages: port.sendPages,
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
        var number = 0
        for index in scratch.transmit.indices where scratch.transmit[index].pieceCount > 0 {
            if scratch.transmit[index].status == .okay { stage(index, &number, scratch) }
        }
    }

    private mutating func send(_ scratch: NetScratch) throws(HostFailure) {
        try port.send()
        for record in scratch.transmit where record.place >= 0 {
            let result = port.result(record.place)
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

    /// Gives a packet to the port, behind a header that says what is to be done with it.
    private mutating func stage(_ index: Int, _ number: inout Int, _ scratch: NetScratch) {
        let record = scratch.transmit[index]
        do throws(OffloadFault) {
            let header = try NetPipeline.transmit(record, port.sendPages, scratch)
            header.encode(into: port.beginPacket(first: scratch.pieces[record.pieceStart].offset))
        } catch {
            scratch.transmit[index].status = .error
            metrics.transmitFaults &+= 1
            log.fault("queue \(facts.index): a packet is dropped: \(error)")
            return
        }
        scratch.transmit[index].place = number
        number &+= 1
        for piece in record.pieceStart..<record.pieceStart &+ record.pieceCount {
            let (offset, byteCount) = scratch.pieces[piece]
            port.add(offset, byteCount)
        }
        port.endPacket()
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
