// The URB ring of a USB frontend: places with their pages, URBs in flight, answers.

internal import Hypervisor
internal import SharedRing
internal import XenWire

/// The ring and its pages. Belongs to its `USBFrontend`, whose loop is the only one to touch it.
final class URBFrontRing {
    /// A place for one URB: its number is the URB's id.
    private struct Place {
        var serial: UInt64 = 0
        /// nil while the place is free.
        var urb: FrontURB?
        var isUnlink = false
        /// Pages that the backend may read, and that it may write too: granted as far as they were needed.
        var outPages: SharedGrant?
        var inPages: SharedGrant?
        var frames: SharedGrant?
        var response: URBResponse?
        var waiter: CheckedContinuation<URBResponse?, Never>?

        var pages: SharedGrant? { urb?.pipe.direction == .in ? inPages : outPages }
    }

    let grant: SharedGrant
    var statistics = USBFrontendStatistics()
    private let port: EventChannelPort
    private var ring: FrontRing
    private let events: any EventChannels
    private let sharing: any GrantSharing
    private let backend: DomainID
    private let options: USBFrontendOptions
    private let scratch: PrivatePages
    private var places: [Place]
    private var free: [Int]
    private var waiting: [CheckedContinuation<Int?, Never>] = []
    private var nextSerial: UInt64 = 0
    private var isClosed = false

    private static let maxFrameBytes = SharedPages.pageSize + USBWire.maxPackets * USBWire.packetDescriptorSize

    init(
        hypervisor: any Hypervisor,
        events: any EventChannels,
        port: EventChannelPort,
        backend: DomainID,
        options: USBFrontendOptions
    ) throws(FrontendFailure) {
        let sharing = hypervisor.sharing
        self.sharing = sharing
        self.events = events
        self.port = port
        self.backend = backend
        self.options = options
        let grant = try FrontendDrivers.hypervisor { () throws(HypervisorFailure) in
            try sharing.share(pageCount: 1, with: backend, access: .readWrite)
        }
        self.grant = grant
        ring = FrontRing(pages: grant.pages, stride: USBWire.urbStride)
        do { scratch = try PrivatePages(byteCount: SharedPages.pageSize + URBFrontRing.maxFrameBytes) } catch {
            throw .hypervisor(HypervisorFailure("allocate an URB slot", error))
        }
        places = Array(repeating: Place(), count: USBWire.urbSlots)
        free = Array((0..<USBWire.urbSlots).reversed())
    }

    // MARK: sending

    /// Fills a place's pages and puts its URB into the ring.
    /// - Parameter bytes: data to send from `offset` on.
    func submit(_ urb: FrontURB, _ bytes: PrivatePages?, at offset: Int) async throws(FrontendFailure) -> URBTicket {
        let index = try await place()
        places[index].urb = urb
        do throws(FrontendFailure) {
            try preparePages(index, urb)
        } catch {
            giveBack(index)
            throw error
        }
        if urb.pipe.direction == .out, let bytes, let pages = places[index].outPages?.pages {
            pages.copyIn(at: urb.pageOffset, count: urb.byteCount, from: bytes, at: offset)
        }
        let frames = writeFrames(index, urb)
        let segments = segments(places[index].pages, from: urb.pageOffset, urb.byteCount) + frames
        encode(index, urb.pipe, specifics(urb, frames.count), segments, flags: urb.shortNotOK ? 1 : 0)
        statistics.submitted += 1
        return URBTicket(id: UInt16(index), serial: places[index].serial)
    }

    /// Asks for an URB back.
    /// - Returns: what to wait for: the answer to the unlink, not to the URB.
    func unlink(_ id: UInt16, _ pipe: USBPipe) async throws(FrontendFailure) -> URBTicket {
        let index = try await place()
        places[index].isUnlink = true
        places[index].urb = FrontURB(pipe, .bulk, byteCount: 0)
        encode(index, USBPipe(rawValue: pipe.rawValue | 0x20), .unlink(id), [], flags: 0)
        statistics.unlinks += 1
        return URBTicket(id: UInt16(index), serial: places[index].serial)
    }

    /// An URB that was not fetched yet.
    func urb(of ticket: URBTicket) -> FrontURB? { isCurrent(ticket) ? places[Int(ticket.id)].urb : nil }

    private func place() async throws(FrontendFailure) -> Int {
        let index = await freePlace()
        guard let index, !isClosed else { throw .closed }
        nextSerial += 1
        places[index].serial = nextSerial
        return index
    }

    private func freePlace() async -> Int? {
        if isClosed { return nil }
        if let index = free.popLast() { return index }
        // Answers may have arrived while the continuation was made, so check again.
        return await withCheckedContinuation { continuation in
            if isClosed {
                continuation.resume(returning: nil)
            } else if let index = free.popLast() {
                continuation.resume(returning: index)
            } else {
                waiting.append(continuation)
            }
        }
    }

    private func giveBack(_ index: Int) {
        places[index].urb = nil
        places[index].isUnlink = false
        places[index].response = nil
        if isClosed { return }
        if waiting.isEmpty { free.append(index) } else { waiting.removeFirst().resume(returning: index) }
    }

    private func encode(
        _ index: Int,
        _ pipe: USBPipe,
        _ specifics: RawURBSpecifics,
        _ segments: [URBSegment],
        flags: UInt16
    ) {
        let slot = scratch.slot(at: 0, byteCount: USBWire.urbStride)
        RawURB(slot).encode(id: UInt16(index), pipe, specifics, segments: segments, flags: flags)
        ring.put(request: slot, count: USBWire.urbStride)
        if ring.push() {
            statistics.notifications += 1
            events.notify(port)
        }
    }

    // MARK: pages

    private func preparePages(_ index: Int, _ urb: FrontURB) throws(FrontendFailure) {
        let frameBytes = frameBytes(of: urb)
        let framePages = frameBytes == 0 ? 0 : (options.frameOffset + frameBytes + 4095) / 4096
        guard urb.pageCount + framePages <= USBWire.maxSegments, urb.packets.count <= USBWire.maxPackets,
            urb.pageOffset < SharedPages.pageSize, options.frameOffset < SharedPages.pageSize
        else { throw .unsupported("an URB of \(urb.pageCount) pages and \(framePages) of frame descriptors") }
        if urb.pipe.direction == .in {
            try extend(&places[index].inPages, to: urb.pageCount, .readWrite)
        } else {
            try extend(&places[index].outPages, to: urb.pageCount, .readOnly)
        }
        try extend(&places[index].frames, to: framePages, .readWrite)
    }

    private func extend(_ grant: inout SharedGrant?, to count: Int, _ access: GrantAccess) throws(FrontendFailure) {
        guard count > grant?.references.count ?? 0 else { return }
        let sharing = sharing
        let backend = backend
        grant = try FrontendDrivers.hypervisor { () throws(HypervisorFailure) in
            try sharing.share(pageCount: count, with: backend, access: access)
        }
    }

    /// xen-hcd grants no descriptors of an URB without data.
    private func frameBytes(of urb: FrontURB) -> Int {
        urb.byteCount == 0 ? 0 : urb.packets.count * USBWire.packetDescriptorSize
    }

    private func segments(_ grant: SharedGrant?, from offset: Int, _ count: Int) -> [URBSegment] {
        guard let grant, count > 0 else { return [] }
        var (segments, left, start) = ([] as [URBSegment], count, offset)
        for reference in grant.references where left > 0 {
            let part = min(left, SharedPages.pageSize - start)
            segments.append(URBSegment(reference, offset: UInt16(start), length: UInt16(part)))
            left -= part
            start = 0
        }
        return segments
    }

    /// Writes the descriptors as usbcore does before a transfer: nothing moved, -EXDEV.
    private func writeFrames(_ index: Int, _ urb: FrontURB) -> [URBSegment] {
        let count = frameBytes(of: urb)
        guard count > 0, let frames = places[index].frames else { return [] }
        let slot = scratch.slot(at: SharedPages.pageSize, byteCount: count)
        for (number, packet) in urb.packets.enumerated() {
            let place = number * USBWire.packetDescriptorSize
            slot.set32(UInt32(packet.offset), at: place)
            slot.set32(UInt32(packet.byteCount), at: place + 4)
            slot.set32(0, at: place + 8)
            slot.set32(UInt32(bitPattern: PacketStatus.missed.rawValue), at: place + 12)
        }
        frames.pages.copyIn(at: options.frameOffset, count: count, from: scratch, at: SharedPages.pageSize)
        return segments(frames, from: options.frameOffset, count)
    }

    private func specifics(_ urb: FrontURB, _ frameSegments: Int) -> RawURBSpecifics {
        switch urb.kind {
        case .control(let setup): .control(setup)
        case .bulk: .bulk
        case .interrupt(let interval): .interrupt(interval: interval)
        case .isochronous(let interval, let packets):
            .isochronous(
                interval: interval,
                startFrame: 0,
                packets: UInt16(packets.count),
                frameSegments: UInt16(frameSegments)
            )
        }
    }

    // MARK: answers

    /// Waits for an answer. Its place stays taken until `fetch`.
    func wait(for ticket: URBTicket) async throws(FrontendFailure) -> URBResponse {
        guard isCurrent(ticket), !isClosed else { throw .closed }
        let index = Int(ticket.id)
        if let response = places[index].response { return response }
        let response = await withCheckedContinuation { (continuation: CheckedContinuation<URBResponse?, Never>) in
            if isClosed || places[index].waiter != nil {
                continuation.resume(returning: nil)
            } else if let response = places[index].response {
                continuation.resume(returning: response)
            } else {
                places[index].waiter = continuation
            }
        }
        guard let response else { throw .closed }
        return response
    }

    /// Takes the data of an answered URB, and gives its place back.
    /// - Parameter bytes: where data received go, from `offset` on.
    /// - Returns: what the frame descriptors say.
    func fetch(
        _ ticket: URBTicket,
        _ response: URBResponse,
        _ bytes: PrivatePages?,
        at offset: Int
    ) -> [URBOutcome.Packet] {
        let index = Int(ticket.id)
        guard isCurrent(ticket), let urb = places[index].urb else { return [] }
        if urb.pipe.direction == .in, !places[index].isUnlink, let bytes, let pages = places[index].inPages?.pages {
            let count = urb.packets.isEmpty ? min(urb.byteCount, Int(response.byteCount)) : urb.byteCount
            pages.copyOut(at: urb.pageOffset, count: count, to: bytes, at: offset)
        }
        let packets = readFrames(index, urb)
        if options.grantsEachURB {
            places[index].inPages = nil
            places[index].outPages = nil
            places[index].frames = nil
        }
        giveBack(index)
        return packets
    }

    private func readFrames(_ index: Int, _ urb: FrontURB) -> [URBOutcome.Packet] {
        let count = frameBytes(of: urb)
        guard count > 0, let frames = places[index].frames else { return [] }
        frames.pages.copyOut(at: options.frameOffset, count: count, to: scratch, at: SharedPages.pageSize)
        let slot = scratch.slot(at: SharedPages.pageSize, byteCount: count)
        return urb.packets.indices.map { number in
            let place = number * USBWire.packetDescriptorSize
            return URBOutcome.Packet(
                byteCount: Int(slot.u32(place + 8)),
                status: PacketStatus(rawValue: Int32(bitPattern: slot.u32(place + 12)))
            )
        }
    }

    private func isCurrent(_ ticket: URBTicket) -> Bool {
        places.indices.contains(Int(ticket.id)) && places[Int(ticket.id)].serial == ticket.serial
            && places[Int(ticket.id)].urb != nil
    }

    /// Takes all answers and arms the ring for the next event.
    /// - Throws: what is the end of the controller for xen-hcd: an id that is not in flight, or an index beyond the ring.
    func takeAnswers() throws(FrontendFailure) {
        var count = try look(&ring) { (ring) throws(ResponseProducerFault) in try ring.poll() }
        while count > 0 {
            while ring.waiting > 0 { try takeAnswer() }
            count = try look(&ring) { (ring) throws(ResponseProducerFault) in try ring.lastLook() }
        }
    }

    private func takeAnswer() throws(FrontendFailure) {
        let slot = scratch.slot(at: 0, byteCount: USBWire.urbResponseSize)
        ring.takeNext(into: slot, count: USBWire.urbResponseSize)
        let response = URBResponse(decoding: slot)
        let index = Int(response.id)
        guard places.indices.contains(index), places[index].urb != nil, places[index].response == nil else {
            throw .badResponse(id: UInt64(response.id))
        }
        if !places[index].isUnlink {
            statistics.answered += 1
            statistics.bytes &+= UInt64(response.byteCount)
            if response.status != .okay { statistics.failed += 1 }
        }
        places[index].response = response
        places[index].waiter?.resume(returning: response)
        places[index].waiter = nil
    }

    /// Closes: every waiting caller gets an error.
    func close() {
        isClosed = true
        for index in places.indices {
            places[index].waiter?.resume(returning: nil)
            places[index] = Place()
        }
        for waiter in waiting { waiter.resume(returning: nil) }
        waiting = []
    }
}
