// What happens to each URB when its turn comes: it is submitted to the host, parked, or answered here.

internal import BackendCore
internal import HostUSB
internal import SharedRing
internal import XenWire

extension USBRingState {
    /// An URB in the order of the ring.
    mutating func dispatch(_ slot: Int) {
        if let fault = urbs[slot].fault { return refuse(slot, fault) }
        if case .unlink(let id) = urbs[slot].request.kind { return unlink(slot, id) }
        let port = ports[urbs[slot].request.port.index]
        // Those that can become one transfer are started together, once the whole batch is taken.
        let waits = urbs[slot].request.endsQueueIfShort
        if !waits, mayStart(slot, port, before: parked.count) { return start(slot, port) }
        metrics.parked &+= 1
        urbs[slot].stage = .parked
        parked.append(UInt16(truncatingIfNeeded: slot))
    }

    /// Starts all parked URBs that need not wait any longer, in ring order.
    mutating func resume() {
        var place = 0
        while place < parked.count {
            let slot = Int(parked[place])
            let port = ports[urbs[slot].request.port.index]
            guard mayStart(slot, port, before: place) else {
                place &+= 1
                continue
            }
            parked.remove(at: place)
            urbs[slot].stage = .taken
            start(slot, port)
        }
    }

    /// Whether nothing holds an URB back: its port, a transfer that may end its endpoint's queue, an URB of its endpoint
    /// among the first `count` parked ones.
    private mutating func mayStart(_ slot: Int, _ port: RootPort, before count: Int) -> Bool {
        if port.isHeld { return false }
        noticeReset(slot, port)
        if port.isHeld { return false }
        let pipe = urbs[slot].request.pipe
        let queue = RootPort.queue(of: pipe)
        if port.barred & queue != 0 || urbs[slot].request.mayHalt && port.halted & queue != 0 { return false }
        for place in 0..<count {
            let other = urbs[Int(parked[place])].request.pipe
            if other.portNumber == pipe.portNumber, RootPort.queue(of: other) == queue { return false }
        }
        return true
    }

    // MARK: halted queues

    /// Starts nothing more from these queues until the frontend has seen the response at that index.
    ///
    /// When a bulk or interrupt URB fails, is unlinked, or is short and should not have been, its endpoint's queue is
    /// halted until the driver has learnt of it and has unlinked what it no longer wants (Linux,
    /// drivers/usb/core/urb.c, `usb_unlink_urb`). usbif.h has no message for that. But `rsp_event` moves when the
    /// driver has seen the response, and what xen-hcd's drivers unlink is in the ring by then.
    mutating func halt(_ port: RootPort, _ queues: UInt32, by response: UInt32) {
        port.halt(queues, by: response, now: now)
        isHalted = true
    }

    /// Resumes halted queues.
    /// - Parameter seen: `rsp_event`, read before all requests were taken.
    /// - Returns: whether any was resumed.
    mutating func resumeQueues(_ seen: UInt32) -> Bool {
        var resumes = false
        isHalted = false
        for port in ports where port.halted != 0 {
            resumes = port.resumeQueues(seen, now: now) || resumes
            isHalted = isHalted || port.halted != 0
        }
        return resumes
    }

    /// Whether URBs wait for the frontend to move `rsp_event`, for which it sends no event.
    var waitsForFrontend: Bool {
        isHalted
            && parked.contains { slot in
                let request = urbs[Int(slot)].request
                return request.mayHalt && ports[request.port.index].halted & RootPort.queue(of: request.pipe) != 0
            }
    }

    // MARK: resets

    /// xen-hcd resets its virtual ports without telling the backend; after a reset it addresses the device at address
    /// 0. A device that had an address is then really reset, before that URB gets to it: a driver resets a device to
    /// get it working again.
    private mutating func noticeReset(_ slot: Int, _ port: RootPort) {
        let pipe = urbs[slot].request.pipe
        guard pipe.device == 0, pipe.type == .control, port.isUsed, port.device != nil, port.memory == nil else {
            return
        }
        port.address = 0
        port.isUsed = false
        port.remainders = PacketRemainders()
        isMemoryStale = true
        if port.resets.allow() == nil {
            metrics.resetsSkipped &+= 1
            return
        }
        metrics.resets &+= 1
        operate(port, .reset)
    }

    /// Starts an operation on a device that all URBs to it wait for.
    func operate(_ port: RootPort, _ operation: USBOperation) {
        port.operations.append(operation)
        if port.operations.count == 1 { port.device?.perform(operation, slot: USBQueue.operationSlot) }
    }

    // MARK: starting

    private mutating func start(_ slot: Int, _ port: RootPort) {
        guard let device = port.device, let capabilities = port.capabilities else { return refuse(slot, .emptyPort) }
        let request = urbs[slot].request
        guard request.pipe.device == port.address else {
            return refuse(slot, .address(request.pipe.device, expected: port.address))
        }
        switch request.kind {
        case .control(let setup) where request.pipe.endpoint == 0: control(slot, setup, port, device, capabilities)
        case .control, .bulk, .interrupt, .isochronous:
            guard port.endpoints[request.endpoint] == request.pipe.type else {
                return refuse(slot, .endpoint(request.endpoint))
            }
            submit(slot, port, device)
        case .unlink: break
        }
    }

    /// A request to endpoint 0: the device's, the host's stack's, or ours.
    private mutating func control(
        _ slot: Int,
        _ setup: SetupPacket,
        _ port: RootPort,
        _ device: any OpenUSBDevice,
        _ capabilities: USBCapabilities
    ) {
        let request = USBControlRequest(setup)
        switch request {
        case .setAddress(let address):
            metrics.intercepted &+= 1
            port.address = address
            port.isUsed = port.isUsed || address != 0
            isMemoryStale = true
            answer(slot, .okay)
        case .setConfiguration(let value):
            intercept(slot, .setConfiguration(value), .setConfiguration(value), device)
        case .setInterface(let interface, let alternate):
            intercept(
                slot,
                .setInterface(interface, alternate: alternate),
                .setInterface(interface, alternate: alternate),
                device
            )
        case .clearHalt(let endpoint) where endpoint.number == 0:
            metrics.intercepted &+= 1
            answer(slot, .okay)
        case .clearHalt(let endpoint):
            port.remainders.forget(endpoint)
            intercept(slot, .clearHalt, .clearHalt(endpoint: endpoint.rawValue), device)
        case .refused(let refusal): refuse(slot, .control(refusal))
        case .getDescriptor(let type, let index, _):
            switch capabilities.answer(to: type, index: index, length: setup.length) {
            case .forward: submit(slot, port, device)
            case .stall: end(slot, .stall, 0)
            case .bytes(let bytes): give(slot, bytes)
            }
        case .forward: submit(slot, port, device)
        }
    }

    /// Has it done by the host's USB stack; its result arrives like a transfer's.
    private mutating func intercept(
        _ slot: Int,
        _ interception: PendingURB.Interception,
        _ operation: USBOperation,
        _ device: any OpenUSBDevice
    ) {
        metrics.intercepted &+= 1
        urbs[slot].stage = .running
        urbs[slot].device = device
        urbs[slot].interception = interception
        holdQueue(slot)
        device.perform(operation, slot: UInt32(slot))
    }

    /// Answers with bytes of ours, as if the device had sent them.
    private mutating func give(_ slot: Int, _ bytes: [UInt8]) {
        metrics.intercepted &+= 1
        buffers.pages.write(bytes, at: USBBuffers.data(slot))
        end(slot, .completed, bytes.count)
    }

    /// Ends an URB as if the host had completed it.
    private mutating func end(_ slot: Int, _ status: USBStatus, _ byteCount: Int) {
        urbs[slot].stage = .running
        holdQueue(slot)
        ended.append(EndedURB(slot: slot, status: status, byteCount: byteCount, place: USBBuffers.data(slot)))
    }

    /// Gives an URB to the host.
    private mutating func submit(_ slot: Int, _ port: RootPort, _ device: any OpenUSBDevice) {
        let request = urbs[slot].request
        let endpoint = request.endpoint.rawValue
        let data = USBBuffers.data(slot)
        let transfer: USBTransfer
        switch request.kind {
        case .control(let setup):
            buffers.pages.slot(at: USBBuffers.setup(slot), byteCount: USBBuffers.setupBytes).set64(setup.word, at: 0)
            transfer = USBTransfer(
                .control,
                endpoint: request.endpoint.number,
                offset: USBBuffers.setup(slot),
                byteCount: USBBuffers.setupBytes &+ Int(setup.length)
            )
        case .bulk:
            let byteCount = request.endsQueueIfShort ? join(slot, device) : request.byteCount
            if port.capabilities?.splitsPackets ?? false, request.direction == .in, byteCount > 0 {
                return receive(slot, port, device, byteCount)
            }
            transfer = USBTransfer(.bulk, endpoint: endpoint, offset: data, byteCount: byteCount)
        case .interrupt:
            transfer = USBTransfer(.interrupt, endpoint: endpoint, offset: data, byteCount: request.byteCount)
        case .isochronous(let interval, _, let count):
            guard request.frameSegmentCount > 0 else { return end(slot, .completed, 0) }
            do throws(URBFault) {
                let byteCount = try arrange(slot, device)
                transfer = USBTransfer(
                    .isochronous,
                    endpoint: endpoint,
                    offset: data,
                    byteCount: byteCount,
                    packetCount: count
                )
            } catch {
                return refuse(slot, .request(error))
            }
            urbs[slot].packetCount = count
            schedule(slot, port, interval: interval, count: count)
        case .unlink: return
        }
        holdQueue(slot)
        urbs[slot].stage = .running
        urbs[slot].device = device
        device.submit(transfer, slot: UInt32(slot))
    }

    /// Makes what follows an URB on its endpoint wait until it has ended, if required.
    mutating func holdQueue(_ slot: Int, alsoIf must: Bool = false) {
        let request = urbs[slot].request
        urbs[slot].holdsQueue = request.holdsQueue || must
        if urbs[slot].holdsQueue { ports[request.port.index].barred |= RootPort.queue(of: request.pipe) }
    }

    /// Sets the frame in which an isochronous URB begins: after the one before it, or now.
    private mutating func schedule(_ slot: Int, _ port: RootPort, interval: UInt16, count: Int) {
        let index = RootPort.index(urbs[slot].request.endpoint)
        if port.framesInFlight[index] == 0 { port.frames[index] = UInt16(truncatingIfNeeded: now / 1_000_000) }
        port.framesInFlight[index] &+= 1
        urbs[slot].startFrame = port.frames[index]
        port.frames[index] &+= interval &* UInt16(truncatingIfNeeded: count)
    }

    // MARK: joining

    /// Makes one transfer of an URB and those parked behind it, as far as they fit into one buffer. Each may be short,
    /// which ends the queue, so that none could begin before the one before it has ended; within one transfer the
    /// host's controller takes care of that.
    /// - Returns: bytes of all of them.
    private mutating func join(_ slot: Int, _ device: any OpenUSBDevice) -> Int {
        let first = urbs[slot].request
        var total = first.byteCount
        var last = slot
        var place = 0
        while place < parked.count, total & USBRingState.packetMask == 0 {
            let other = Int(parked[place])
            let request = urbs[other].request
            guard request.pipe == first.pipe else {
                place &+= 1
                continue
            }
            guard request.endsQueueIfShort, total &+ request.byteCount <= USBWire.maxBytes else { break }
            parked.remove(at: place)
            urbs[last].next = other
            urbs[other].stage = .joined
            urbs[other].device = device
            urbs[other].head = slot
            total &+= request.byteCount
            last = other
            metrics.joined &+= 1
        }
        return total
    }

    /// Parts of a transfer end between packets, of whatever size the guest's bus has.
    private static var packetMask: Int { 511 }

    // MARK: unlinking

    /// Cancels an URB. Both are answered, each once: the unlink now, the URB when the host has released it.
    private mutating func unlink(_ slot: Int, _ id: UInt16) {
        for other in urbs.indices where urbs[other].id == id && other != slot {
            switch urbs[other].stage {
            case .parked:
                parked.removeAll { Int($0) == other }
                refuse(other, .unlinked)
            case .running where !urbs[other].isUnlinked:
                urbs[other].isUnlinked = true
                // What the host's USB stack does ends by itself.
                if urbs[other].interception == nil { urbs[other].device?.cancel(UInt32(other)) }
            case .joined where !urbs[other].isUnlinked:
                urbs[other].isUnlinked = true
                urbs[other].device?.cancel(UInt32(urbs[other].head))
            case .free, .taken, .running, .joined, .answered: continue
            }
            return answer(slot, .okay)
        }
        answer(slot, .notFound)
    }
}
