// Packets for the frontend: host → frames → copies into its pages → responses in ring order, a batch at a time.

internal import BackendCore
internal import HostNetwork
internal import Hypervisor
internal import SharedRing
internal import XenWire

/// The receive ring of one queue with its journal. Owned by the queue, passed on `inout` once per batch.
///
/// A packet is read only while enough slots for the largest one are posted: what the frontend has no room for stays in
/// the interface's own queue, which is bounded and drops the rest (XSA-392). With fewer slots one packet is read and
/// held until there are enough.
struct NetReceive: ~Copyable {
    private let facts: NetQueueFacts
    private var ring: OrderedRing
    private let device: PacketQueue
    private let accepts: ReceiveFeatures
    /// The ring has fewer slots than the next packet needs.
    private(set) var isWaiting = false
    /// One packet that found too few slots, in memory of its own.
    private var held: HeldPacket?
    /// The interface may have packets: it became readable and has not been found empty since.
    var mayHaveInput = true
    /// Packets that this turn has delivered, and whether the frontend asked to be notified.
    private var delivered = 0
    private var asked = false
    var metrics = NetMetrics()
    var log: FaultLog

    private struct HeldPacket {
        let memory: PrivatePages
        var byteCount: Int
        var isFull: Bool

        var header: VirtioNetHeader {
            VirtioNetHeader(decoding: memory.slot(at: 0, byteCount: VirtioNetHeader.byteCount))
        }
    }

    private static let format = SlotFormat(requestBytes: NetWire.receiveStride, responseBytes: NetWire.receiveStride)

    /// - Parameter isTakeover: go on where a predecessor's answers ended.
    init(
        _ facts: NetQueueFacts,
        pages: SharedPages,
        journal: consuming RingJournal,
        device: PacketQueue,
        accepts: ReceiveFeatures,
        log: FaultLog,
        isTakeover: Bool
    ) throws(JournalFault) {
        ring = try OrderedRing(pages, NetReceive.format, journal: journal, isTakeover: isTakeover)
        self.facts = facts
        self.device = device
        self.accepts = accepts
        self.log = log
    }

    /// Returns the buffers that a predecessor took to the frontend as errors; it posts them again.
    mutating func answerLost() {
        for _ in 0..<ring.unanswered { put([], -1) }
        if ring.unanswered > 0 { _ = ring.publish() }
    }

    /// What a turn that has read the interface's packets still needs.
    private enum Need { case nothing, anotherTurn, buffers }

    /// One batch. A turn that found too few buffers is idle and leaves the ring waiting for them (`isWaiting`).
    mutating func turn(_ scratch: NetScratch, notify: inout Bool) -> TurnEnd {
        metrics.receiveTurns &+= 1
        scratch.clear()
        (delivered, asked) = (0, false)
        defer { if asked { notify = true } }
        do throws(Breakdown) {
            _ = try ring.poll()
            deliverHeld(scratch)
            deliverSteered(scratch)
            var need = receive(scratch)
            finish(scratch)
            let worked = delivered > 0
            // Without buffers the ring stays stalled even when the packets that waited for them were dropped: only
            // new buffers end a stall.
            if isWaiting, !worked, ring.waiting == 0 { need = .buffers }
            let wasWaiting = isWaiting
            isWaiting = false
            switch need {
            case .nothing: return .idle(worked: worked)
            case .anotherTurn: return .more
            case .buffers:
                if !wasWaiting { metrics.receiveWaits &+= 1 }
                // Ask for an event only now: at other times it would be useless.
                let wanted = slotsWanted
                isWaiting = try ring.lastLook(for: wanted) < wanted
                return isWaiting ? .idle(worked: worked) : .more
            }
        } catch {
            return .broken(error)
        }
    }

    /// Drops what the frontend has no buffers for.
    mutating func drain(_ scratch: NetScratch) {
        if held?.isFull ?? false { metrics.receiveStalled &+= 1 }
        held?.isFull = false
        for _ in 0..<32 {
            scratch.clear()
            let found = read(scratch, count: NetScratch.packets)
            metrics.receiveStalled &+= UInt64(truncatingIfNeeded: found)
            if !mayHaveInput { break }
        }
    }

    /// Slots that must be posted before the next turn can do anything.
    private var slotsWanted: UInt32 {
        guard let held, held.isFull else { return 1 }
        return UInt32(truncatingIfNeeded: slots(for: held.byteCount, held.header))
    }

    /// Slots that a packet takes: its pages, and one for each extra that it may come with.
    private func slots(for byteCount: Int, _ header: VirtioNetHeader) -> Int {
        NetWire.pages(of: byteCount) &+ (header.segmentKind == .none ? 0 : 1) &+ (facts.shared.isHashing ? 1 : 0)
    }

    /// Slots that the largest packet takes with what was negotiated; the interface's own MTU may be jumbo.
    private var slotsPerPacket: Int {
        let hash = facts.shared.isHashing ? 1 : 0
        if !facts.offloads.isDisjoint(with: [.segmentationV4, .segmentationV6]) {
            return NetWire.pages(of: NetWire.maxReceivedFrame) &+ 1 &+ hash
        }
        return (accepts.contains(.scatterGather) ? 4 : 1) &+ hash
    }

    // MARK: host → frames

    private mutating func receive(_ scratch: NetScratch) -> Need {
        if held?.isFull ?? false { return .buffers }
        guard mayHaveInput else { return .nothing }
        let free = Int(ring.waiting)
        let count = min(NetScratch.packets, free / slotsPerPacket)
        if count == 0 { return free == 0 ? .buffers : receiveOne(scratch) }
        let found = read(scratch, count: count)
        for index in 0..<found {
            let result = scratch.batch.result(index)
            if result <= 0 { continue }
            let frame = Int(result) &- PacketQueue.headerBytes
            deliver(scratch, header: NetScratch.header(index), frame: NetScratch.frame(index), byteCount: frame)
        }
        return mayHaveInput ? .anotherTurn : .nothing
    }

    /// Reads up to `count` packets, as long as there are some; `mayHaveInput` says afterwards whether there may be more.
    private mutating func read(_ scratch: NetScratch, count: Int) -> Int {
        scratch.batch.removeAll()
        for index in 0..<count {
            scratch.batch.beginPacket()
            scratch.batch.add(
                scratch.headers,
                offset: NetScratch.header(index),
                byteCount: PacketQueue.headerBytes
            )
            scratch.batch.add(scratch.frames, offset: NetScratch.frame(index), byteCount: NetScratch.frameBytes)
        }
        let found = scratch.batch.receive(from: device)
        mayHaveInput = !scratch.batch.isDry
        for index in 0..<found {
            let result = scratch.batch.result(index)
            if result < 0 { facts.refused(result) }
        }
        return found
    }

    /// With few slots left: one packet, which is held if it does not fit.
    private mutating func receiveOne(_ scratch: NetScratch) -> Need {
        let found = read(scratch, count: 1)
        guard found == 1, scratch.batch.result(0) > 0 else { return .nothing }
        let byteCount = Int(scratch.batch.result(0)) &- PacketQueue.headerBytes
        let header = scratch.header(at: NetScratch.header(0))
        if slots(for: byteCount, header) <= Int(ring.waiting) {
            deliver(scratch, header: NetScratch.header(0), frame: NetScratch.frame(0), byteCount: byteCount)
            return .anotherTurn
        }
        hold(scratch, byteCount)
        return .buffers
    }

    private mutating func hold(_ scratch: NetScratch, _ byteCount: Int) {
        let header = NetScratch.headerStride
        if held == nil {
            guard let memory = try? PrivatePages(byteCount: NetScratch.frameBytes + header) else {
                metrics.receiveStalled &+= 1
                return
            }
            held = HeldPacket(memory: memory, byteCount: 0, isFull: false)
        }
        held?.memory.copy(from: scratch.headers, at: NetScratch.header(0), count: PacketQueue.headerBytes, to: 0)
        held?.memory.copy(from: scratch.frames, at: NetScratch.frame(0), count: byteCount, to: header)
        held?.byteCount = byteCount
        held?.isFull = true
    }

    private mutating func deliverHeld(_ scratch: NetScratch) {
        guard let held, held.isFull, slots(for: held.byteCount, held.header) <= Int(ring.waiting) else { return }
        let (header, frame) = (NetScratch.header(NetScratch.heldPlace), NetScratch.frame(NetScratch.heldPlace))
        scratch.headers.copy(from: held.memory, at: 0, count: PacketQueue.headerBytes, to: header)
        scratch.frames.copy(from: held.memory, at: NetScratch.headerStride, count: held.byteCount, to: frame)
        self.held?.isFull = false
        deliver(scratch, header: header, frame: frame, byteCount: held.byteCount)
    }

    /// Delivers what other queues steered here. Packets that find no slots are dropped: they have waited long enough.
    private mutating func deliverSteered(_ scratch: NetScratch) {
        guard facts.shared.isHashing else { return }
        for (number, packet) in facts.shared.takeSteered(queue: facts.index, limit: NetScratch.steeredPackets)
            .enumerated()
        {
            let place = NetScratch.steeredPlace &+ number
            let byteCount = packet.frame.count
            scratch.headers.write(packet.header, at: NetScratch.header(place))
            guard slots(for: byteCount, scratch.header(at: NetScratch.header(place))) <= Int(ring.waiting) else {
                metrics.receiveStalled &+= 1
                continue
            }
            scratch.frames.write(packet.frame, at: NetScratch.frame(place))
            deliver(
                scratch,
                header: NetScratch.header(place),
                frame: NetScratch.frame(place),
                byteCount: byteCount,
                ignoresSteering: true
            )
        }
    }

    // MARK: frames → copies

    /// Takes slots for a packet, and puts its copies into the batch.
    private mutating func deliver(
        _ scratch: NetScratch,
        header: Int,
        frame: Int,
        byteCount: Int,
        ignoresSteering: Bool = false
    ) {
        var record = ReceiveRecord(
            first: ring.requestConsumer,
            byteCount: byteCount,
            flags: [],
            copyStart: facts.data.copies.count
        )
        let packet = scratch.frames.slot(at: frame, byteCount: byteCount)
        let virtio = scratch.header(at: header)
        let own = ignoresSteering ? nil : facts.index
        switch NetPipeline.receive(&record, packet, virtio, accepts, facts.shared, own: own) {
        case .deliver: break
        case .cut(let segments):
            deliver(segments, of: frame, scratch)
            return
        case .elsewhere(let queue):
            metrics.receiveSteered &+= 1
            let words = scratch.headers.slot(at: header, byteCount: VirtioNetHeader.byteCount)
            facts.shared.post(packet, words, to: queue)
            return
        case .unfit:
            metrics.receiveUnfit &+= 1
            return
        case .filtered:
            metrics.receiveFiltered &+= 1
            return
        }
        guard record.slotCount <= Int(ring.waiting), accepts.contains(.scatterGather) || record.pageCount == 1 else {
            metrics.receiveUnfit &+= 1
            return
        }
        for number in 0..<record.slotCount {
            let slot = ring.take()
            let isExtra = number != 0 && number <= record.extraCount
            if isExtra { continue }
            let page = number == 0 ? 0 : number &- record.extraCount
            let start = page &* NetWire.pageSize
            facts.data.copies.add(
                reference: ReceiveRequest(decoding: slot).reference,
                pageOffset: 0,
                byteCount: UInt16(truncatingIfNeeded: min(NetWire.pageSize, byteCount &- start)),
                intoGrant: true,
                pages: scratch.frames,
                privateOffset: frame &+ start
            )
        }
        scratch.receive.append(record)
        delivered &+= 1
    }

    /// Delivers a packet in segments, each put together in memory that is free again once they are delivered. Those
    /// that find no slots are dropped, as a network may.
    private mutating func deliver(_ segments: TCPSegments, of frame: Int, _ scratch: NetScratch) {
        let start = NetScratch.frame(NetScratch.cutPlace)
        let header = NetScratch.header(NetScratch.cutPlace)
        VirtioNetHeader().encode(into: scratch.headers.slot(at: header, byteCount: VirtioNetHeader.byteCount))
        var cursor = NetScratch.frameBytes
        for index in 0..<segments.count {
            let (length, byteCount) = (segments.length(index), segments.headerBytes &+ segments.length(index))
            let pages = NetWire.pages(of: byteCount)
            guard slots(for: byteCount, VirtioNetHeader()) <= Int(ring.waiting) else {
                metrics.receiveStalled &+= UInt64(truncatingIfNeeded: segments.count &- index)
                break
            }
            let isFull = facts.data.copies.count &+ pages > facts.data.copies.capacity
            if cursor &+ byteCount > NetScratch.frameBytes || isFull {
                finish(scratch)
                cursor = 0
            }
            let place = start &+ cursor
            scratch.frames.copy(from: scratch.frames, at: frame, count: segments.headerBytes, to: place)
            scratch.frames.copy(
                from: scratch.frames,
                at: frame &+ segments.offset(index),
                count: length,
                to: place &+ segments.headerBytes
            )
            segments.finish(index, scratch.frames.slot(at: place, byteCount: byteCount))
            deliver(scratch, header: header, frame: place, byteCount: byteCount, ignoresSteering: true)
            cursor &+= (byteCount &+ 15) & ~15
        }
        // The next packet may need segmenting, too.
        finish(scratch)
    }

    // MARK: copies → responses

    /// Gives the frontend what was delivered so far.
    private mutating func finish(_ scratch: NetScratch) {
        guard !scratch.receive.isEmpty else { return }
        ring.commit()
        // The closure touches the records alone: one that held `self` would cost the batch two retains.
        var index = 0
        var failure: CopyFailure?
        let count = facts.data.runCopies(facts.grants, with: facts.path.domain) { copy, reason in
            // Failures come in the order of the copies, which is that of the packets.
            while !scratch.receive[index].hasCopy(copy) { index &+= 1 }
            scratch.receive[index].markFailed(copy)
            failure = failure ?? reason
        }
        if let failure { note(failure) }
        metrics.count(copies: count)
        for record in scratch.receive { answer(record) }
        scratch.receive.removeAll(keepingCapacity: true)
        let asked = ring.publish()
        metrics.notified(asked)
        if asked { self.asked = true }
        facts.mark.device?.progressed()
    }

    /// Says why copies of a batch were not made.
    private mutating func note(_ failure: CopyFailure) {
        switch failure {
        case .grant(let status):
            log.fault("queue \(facts.index): a posted page cannot be written: status \(status.rawValue)")
        case .hypervisor(let failure): log.failure("cannot copy packets: \(failure)")
        }
    }

    private mutating func answer(_ record: ReceiveRecord) {
        for page in 0..<record.pageCount {
            let isWritten = record.isWritten(page)
            let isLast = page &+ 1 == record.pageCount
            var flags: ReceiveFlags = page == 0 ? record.flags : []
            if !isLast { flags.insert(.moreData) }
            if page == 0, record.extraCount > 0 { flags.insert(.extraInfo) }
            let bytes = isLast ? record.byteCount &- page &* NetWire.pageSize : NetWire.pageSize
            put(flags, isWritten ? Int16(truncatingIfNeeded: bytes) : -1)
            if page == 0 { putExtras(record) }
        }
        if record.failedPages == 0 {
            metrics.receivePackets &+= 1
            metrics.receiveBytes &+= UInt64(truncatingIfNeeded: record.byteCount)
            if record.segmentation != nil { metrics.receiveSegmented &+= 1 }
        } else {
            metrics.receiveFaults &+= 1
        }
    }

    /// The response goes into its request's slot, with that request's id.
    private mutating func put(_ flags: ReceiveFlags, _ status: Int16) {
        let request = ReceiveRequest(decoding: ring.request(ring.responseProducer))
        ring.put(ReceiveResponse.words(id: request.id, offset: 0, flags: flags, status: status))
    }

    private mutating func putExtras(_ record: ReceiveRecord) {
        if let segmentation = record.segmentation {
            let word = ExtraInfo.segmentation(segmentation).word(more: record.hash != nil)
            ring.put(WireWords(low: word, high: 0))
        }
        if let hash = record.hash {
            ring.put(WireWords(low: ExtraInfo.hash(hash).word(), high: 0))
        }
    }
}
