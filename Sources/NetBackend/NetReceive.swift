// Packets for the frontend: host → frames → copies into its pages → responses in ring order, a batch at a time.

internal import BackendCore
internal import HostIO
internal import HostNetwork
internal import Hypervisor
internal import SharedRing
internal import XenWire

/// The receive ring of one queue with its journal. Owned by the queue, passed on `inout` once per batch.
///
/// What the frontend has no room for stays in the interface's own queue, which drops what it cannot hold (XSA-392): a plain
/// port reads only while enough slots for the largest packet are posted, with fewer one packet, which is kept until there
/// are enough; a port of the kernel's is given no more pages than there are slots.
struct NetReceive: ~Copyable {
    private let facts: NetQueueFacts
    private var ring: OrderedRing
    private var port: any PacketPort
    private let accepts: ReceiveFeatures
    /// The ring has fewer slots than the next packet needs, or may need.
    private(set) var isWaiting = false
    /// Slots that the packet needs that the port has kept; 0: it has none.
    private var needed = 0
    /// Why the port cannot go on; its user takes another one then.
    private(set) var portFailure: HostFailure?
    /// Packets that this turn has delivered, and whether the frontend asked to be notified.
    private var delivered = 0
    private var asked = false
    var metrics = NetMetrics()
    var log: FaultLog

    private static let format = SlotFormat(requestBytes: NetWire.receiveStride, responseBytes: NetWire.receiveStride)

    /// - Parameter isTakeover: go on where a predecessor's answers ended.
    init(
        _ facts: NetQueueFacts,
        pages: SharedPages,
        journal: consuming RingJournal,
        port: any PacketPort,
        accepts: ReceiveFeatures,
        log: FaultLog,
        isTakeover: Bool
    ) throws(JournalFault) {
        ring = try OrderedRing(pages, NetReceive.format, journal: journal, isTakeover: isTakeover)
        self.facts = facts
        self.port = port
        self.accepts = accepts
        self.log = log
    }

    /// Goes on through another port.
    mutating func go(through port: any PacketPort) {
        self.port = port
        portFailure = nil
        needed = 0
    }

    /// Returns the buffers that a predecessor took to the frontend as errors; it posts them again.
    mutating func answerLost() {
        for _ in 0..<ring.unanswered { put([], -1) }
        if ring.unanswered > 0 { _ = ring.publish() }
    }

    /// The interface may have packets.
    mutating func mayHaveInput() { port.mayHaveInput() }

    /// What a turn that has looked for the interface's packets still needs.
    private enum Need { case nothing, anotherTurn, buffers }

    /// One batch. A turn that found too few buffers is idle and leaves the ring waiting for them (`isWaiting`); one whose
    /// port has failed is idle, too.
    mutating func turn(_ scratch: NetScratch, notify: inout Bool) -> TurnEnd {
        metrics.receiveTurns &+= 1
        scratch.clear()
        (delivered, asked) = (0, false)
        defer { if asked { notify = true } }
        do throws(Breakdown) {
            _ = try ring.poll()
            let need: Need
            do throws(HostFailure) { need = try carry(scratch) } catch {
                finish(scratch)
                portFailure = error
                return .idle(worked: true)
            }
            return try ended(need)
        } catch {
            return .broken(error)
        }
    }

    /// From the port into the ring.
    private mutating func carry(_ scratch: NetScratch) throws(HostFailure) -> Need {
        deliverSteered(scratch)
        var need = try receive(scratch)
        finish(scratch)
        // Only new buffers end a stall, also when the packets that waited for them were dropped.
        if isWaiting, delivered == 0, ring.waiting == 0 { need = .buffers }
        try port.endReceiving(slots: Int(ring.waiting))
        guard need == .nothing else { return need }
        if try port.lastLookForPackets() { return .anotherTurn }
        // The host gets one page for each slot: a large packet may need more than it has.
        return port.keepsAll && ring.waiting < slotsPerPacket ? .buffers : .nothing
    }

    private mutating func ended(_ need: Need) throws(Breakdown) -> TurnEnd {
        let (worked, wasWaiting) = (delivered > 0, isWaiting)
        isWaiting = false
        switch need {
        case .nothing: return .idle(worked: worked)
        case .anotherTurn: return .more
        case .buffers:
            if !wasWaiting { metrics.receiveWaits &+= 1 }
            // Ask for an event only now: at other times it would be useless.
            let wanted = UInt32(truncatingIfNeeded: slotsWanted)
            isWaiting = try ring.lastLook(for: wanted) < wanted
            return isWaiting ? .idle(worked: worked) : .more
        }
    }

    /// Drops what the frontend has no buffers for.
    mutating func drain(_ scratch: NetScratch) {
        needed = 0
        do throws(HostFailure) {
            for _ in 0..<32 {
                scratch.clear()
                try port.endReceiving(slots: Int(NetWire.receiveSlots))
                let found = try port.receive(upTo: NetScratch.packets)
                metrics.receiveStalled &+= UInt64(truncatingIfNeeded: found)
                if found == 0, !port.hasMore { break }
            }
            try port.endReceiving(slots: Int(ring.waiting))
        } catch {
            portFailure = error
        }
    }

    /// Whether a turn can do anything before the frontend posts more buffers.
    var mayReceive: Bool { !isWaiting || port.keepsAll }

    /// Whether the host has packets, or may have, that wait for the frontend's buffers.
    var isStarved: Bool { isWaiting && (needed > 0 || port.isStarved) }

    /// Slots that must be posted before the next turn can do anything.
    private var slotsWanted: Int {
        if needed > 0 { return needed }
        // A host that gets a page for each slot may need just one more.
        return port.keepsAll ? Int(ring.waiting) &+ 1 : 1
    }

    /// Slots that a packet takes: its pages, and one for each extra that it may come with.
    private func slots(for byteCount: Int, _ lead: Int, _ header: VirtioNetHeader) -> Int {
        NetWire.pages(of: lead &+ byteCount) &+ (header.segmentKind == .none ? 0 : 1)
            &+ (facts.shared.isHashing ? 1 : 0)
    }

    /// Slots that the largest packet takes with what was negotiated; the interface's own MTU may be jumbo.
    private var slotsPerPacket: Int {
        let hash = facts.shared.isHashing ? 1 : 0
        if !facts.offloads.isDisjoint(with: [.segmentationV4, .segmentationV6]) {
            return NetWire.pages(of: NetWire.maxReceivedFrame) &+ 1 &+ hash
        }
        return (accepts.contains(.scatterGather) ? 4 : 1) &+ hash
    }

    private func header(_ pages: PrivatePages, _ offset: Int) -> VirtioNetHeader {
        VirtioNetHeader(decoding: pages.slot(at: offset, byteCount: VirtioNetHeader.byteCount))
    }

    // MARK: host → frames

    private mutating func receive(_ scratch: NetScratch) throws(HostFailure) -> Need {
        let free = Int(ring.waiting)
        if needed > free { return .buffers }
        guard port.keepsAll || port.hasMore else { return .nothing }
        if !port.keepsAll, free == 0 { return .buffers }
        let limit = port.keepsAll ? NetScratch.packets : min(NetScratch.packets, max(1, free / slotsPerPacket))
        let found = try port.receive(upTo: limit)
        needed = 0
        if port.receiveError < 0 { facts.refused(port.receiveError) }
        for index in 0..<found {
            guard let packet = port.packet(index) else { continue }
            let header = header(port.receiveHeaders, packet.header)
            let wanted = slots(for: packet.byteCount, port.lead, header)
            if wanted > Int(ring.waiting) {
                metrics.receiveStalled &+= UInt64(truncatingIfNeeded: port.keep(from: index))
                // More than the ring has: whoever steers has less room for what is large.
                needed = min(wanted, NetWire.receiveSlots)
                return .buffers
            }
            deliver(
                scratch,
                Packet(pages: port.receivePages, frame: packet.frame, byteCount: packet.byteCount, lead: port.lead),
                header
            )
        }
        return port.hasMore ? .anotherTurn : .nothing
    }

    /// Delivers what other queues steered here. Packets that find no slots are dropped: they have waited long enough.
    private mutating func deliverSteered(_ scratch: NetScratch) {
        guard facts.shared.isHashing else { return }
        for (number, packet) in facts.shared.takeSteered(queue: facts.index, limit: NetScratch.steeredPackets)
            .enumerated()
        {
            let byteCount = packet.frame.count
            let place = NetScratch.header(number)
            scratch.headers.write(packet.header, at: place)
            let header = header(scratch.headers, place)
            guard slots(for: byteCount, 0, header) <= Int(ring.waiting) else {
                metrics.receiveStalled &+= 1
                continue
            }
            let frame = NetScratch.frame(number)
            scratch.frames.write(packet.frame, at: frame)
            deliver(
                scratch,
                Packet(pages: scratch.frames, frame: frame, byteCount: byteCount, lead: 0),
                header,
                ignoresSteering: true
            )
        }
    }

    /// A packet in memory of the port's, or in what it was put together in.
    private struct Packet {
        let pages: PrivatePages
        let frame: Int
        let byteCount: Int
        /// Offset of the frame in its first page.
        let lead: Int
    }

    // MARK: frames → copies

    /// Takes slots for a packet, and puts its copies into the batch.
    private mutating func deliver(
        _ scratch: NetScratch,
        _ packet: Packet,
        _ header: VirtioNetHeader,
        ignoresSteering: Bool = false
    ) {
        var record = ReceiveRecord(
            first: ring.requestConsumer,
            byteCount: packet.byteCount,
            flags: [],
            copyStart: facts.data.copies.count,
            lead: packet.lead
        )
        let bytes = packet.pages.slot(at: packet.frame, byteCount: packet.byteCount)
        let own = ignoresSteering ? nil : facts.index
        switch NetPipeline.receive(&record, bytes, header, accepts, facts.shared, own: own) {
        case .deliver: break
        case .cut(let segments):
            deliver(segments, of: packet, scratch)
            return
        case .elsewhere(let queue):
            metrics.receiveSteered &+= 1
            let words = scratch.headers.slot(at: NetScratch.gather, byteCount: VirtioNetHeader.byteCount)
            header.encode(into: words)
            facts.shared.post(bytes, words, to: queue)
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
        copy(record, from: packet)
        scratch.receive.append(record)
        delivered &+= 1
    }

    /// Each page of the frontend's is filled from one page of ours, from the same offset on.
    private mutating func copy(_ record: ReceiveRecord, from packet: Packet) {
        for number in 0..<record.slotCount {
            let slot = ring.take()
            let isExtra = number != 0 && number <= record.extraCount
            if isExtra { continue }
            let bytes = record.bytes(number == 0 ? 0 : number &- record.extraCount)
            facts.data.copies.add(
                reference: ReceiveRequest(decoding: slot).reference,
                pageOffset: UInt16(truncatingIfNeeded: bytes.offset),
                byteCount: UInt16(truncatingIfNeeded: bytes.count),
                intoGrant: true,
                pages: packet.pages,
                privateOffset: packet.frame &+ bytes.start
            )
        }
    }

    /// Delivers a packet in segments, each put together in memory that is free again once they are delivered. Those
    /// that find no slots are dropped, as a network may.
    private mutating func deliver(_ segments: TCPSegments, of packet: Packet, _ scratch: NetScratch) {
        let start = NetScratch.frame(NetScratch.cutPlace)
        var cursor = NetScratch.frameBytes
        for index in 0..<segments.count {
            let (length, byteCount) = (segments.length(index), segments.headerBytes &+ segments.length(index))
            let pages = NetWire.pages(of: byteCount)
            guard slots(for: byteCount, 0, VirtioNetHeader()) <= Int(ring.waiting) else {
                metrics.receiveStalled &+= UInt64(truncatingIfNeeded: segments.count &- index)
                break
            }
            let isFull = facts.data.copies.count &+ pages > facts.data.copies.capacity
            if cursor &+ byteCount > NetScratch.frameBytes || isFull {
                finish(scratch)
                cursor = 0
            }
            let place = start &+ cursor
            scratch.frames.copy(from: packet.pages, at: packet.frame, count: segments.headerBytes, to: place)
            scratch.frames.copy(
                from: packet.pages,
                at: packet.frame &+ segments.offset(index),
                count: length,
                to: place &+ segments.headerBytes
            )
            segments.finish(index, scratch.frames.slot(at: place, byteCount: byteCount))
            let segment = Packet(pages: scratch.frames, frame: place, byteCount: byteCount, lead: 0)
            deliver(scratch, segment, VirtioNetHeader(), ignoresSteering: true)
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
            let bytes = record.bytes(page)
            put(flags, isWritten ? Int16(truncatingIfNeeded: bytes.count) : -1, offset: bytes.offset)
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
    private mutating func put(_ flags: ReceiveFlags, _ status: Int16, offset: Int = 0) {
        let request = ReceiveRequest(decoding: ring.request(ring.responseProducer))
        let start = UInt16(truncatingIfNeeded: offset)
        ring.put(ReceiveResponse.words(id: request.id, offset: start, flags: flags, status: status))
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
