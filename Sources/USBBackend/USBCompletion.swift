// What happens when transfers end: data and frame descriptors go back to the guest, then the answer.

internal import BackendCore
internal import HostUSB
internal import SharedRing
internal import XenWire

extension USBRingState {
    /// A transfer ended; `deliver` does the rest.
    mutating func transferEnded(_ result: USBResult, of device: any OpenUSBDevice) {
        let slot = Int(result.slot)
        guard slot < urbs.count, urbs[slot].stage == .running, urbs[slot].device === device else { return }
        var (status, byteCount) = (result.status, max(result.byteCount, 0))
        if urbs[slot].wanted > 0 { (status, byteCount) = share(slot, status, byteCount) }
        finish(slot, status, byteCount)
    }

    /// A transfer, with all URBs joined in it, has ended like this.
    mutating func finish(_ slot: Int, _ status: USBStatus, _ byteCount: Int) {
        let place = USBBuffers.data(slot)
        if urbs[slot].next < 0 {
            ended.append(EndedURB(slot: slot, status: status, byteCount: byteCount, place: place))
        } else {
            divide(slot, status, byteCount, place)
        }
    }

    /// Gives each part of a joined transfer its share. A part that had not begun when another was cancelled is started
    /// again.
    private mutating func divide(_ head: Int, _ status: USBStatus, _ byteCount: Int, _ first: Int) {
        var (slot, left, place) = (head, byteCount, first)
        var again = 0
        while slot >= 0 {
            let wanted = urbs[slot].request.byteCount
            let next = urbs[slot].next
            (urbs[slot].head, urbs[slot].next) = (-1, -1)
            let share = min(left, wanted)
            let isAskedFor = !urbs[slot].isUnlinked && urbs[slot].dropped == nil
            if status == .cancelled, isAskedFor, share < wanted, share == 0 {
                urbs[slot].stage = .parked
                urbs[slot].device = nil
                parked.insert(UInt16(truncatingIfNeeded: slot), at: again)
                again &+= 1
            } else {
                // A failure after the last byte is that of the last part.
                var end = share == wanted && (next >= 0 || status == .cancelled) ? USBStatus.completed : status
                if end == .cancelled, isAskedFor { end = .transactionError }
                urbs[slot].stage = .running
                ended.append(EndedURB(slot: slot, status: end, byteCount: share, place: place))
            }
            left &-= share
            place &+= share
            slot = next
        }
    }

    /// Cancels everything: nothing is in flight any more once all results have arrived.
    mutating func cancelAll(_ fault: USBFault) {
        for slot in parked { refuse(Int(slot), fault) }
        parked.removeAll(keepingCapacity: true)
        for slot in urbs.indices where urbs[slot].dropped == nil {
            switch urbs[slot].stage {
            case .joined: urbs[slot].dropped = fault
            case .running:
                urbs[slot].dropped = fault
                if urbs[slot].interception == nil { urbs[slot].device?.cancel(UInt32(slot)) }
            case .free, .taken, .parked, .answered: break
            }
        }
    }

    /// The port's device is gone: ends the URBs that waited for it.
    mutating func dropParked(_ port: USBPort) {
        var place = 0
        while place < parked.count {
            let slot = Int(parked[place])
            if urbs[slot].request.port == port {
                parked.remove(at: place)
                refuse(slot, .gone)
            } else {
                place &+= 1
            }
        }
    }

    /// Copies for all that ended, then answers for all of it.
    mutating func concludeEnded() {
        guard !ended.isEmpty else { return }
        var first = 0
        for place in ended.indices {
            if facts.data.copies.capacity &- facts.data.copies.count < copiesAtMost(ended[place].slot) {
                concludeEnded(first..<place)
                first = place
            }
            copyBack(ended[place])
        }
        concludeEnded(first..<ended.count)
        ended.removeAll(keepingCapacity: true)
    }

    private mutating func concludeEnded(_ range: Range<Int>) {
        runCopies()
        for place in range { conclude(ended[place]) }
    }

    private func copiesAtMost(_ slot: Int) -> Int { urbs[slot].packetCount &+ 2 &* USBWire.maxSegments }

    // MARK: data

    /// Only the bytes that arrived are copied: the rest of our buffer must not leak to the guest.
    private mutating func copyBack(_ end: EndedURB) {
        let slot = end.slot
        let request = urbs[slot].request
        if case .isochronous = request.kind { return copyPacketsBack(slot) }
        let count = min(end.byteCount, request.transferByteCount)
        guard request.direction == .in, count > 0 else { return }
        addCopies(slot, from: 0, count: count, at: end.place, intoGrant: true)
    }

    private mutating func copyPacketsBack(_ slot: Int) {
        let count = urbs[slot].packetCount
        guard count > 0, let device = urbs[slot].device else { return }
        let request = urbs[slot].request
        guard
            let packets = try? IsochronousPackets(
                validating: buffers.frames(slot, byteCount: request.frameByteCount),
                of: request
            )
        else { return }
        // Adjacent packets that arrived whole become one copy.
        var run = (from: 0, count: 0, place: 0)
        var place = USBBuffers.data(slot)
        for index in 0..<count {
            let packet = packets.packet(index)
            let result = device.packets[UInt32(slot), index]
            let actual = min(Int(result.actualByteCount), packet.byteCount)
            packets.finish(index, byteCount: actual, PacketStatus(result.status))
            if request.direction == .in, actual > 0 {
                if run.from &+ run.count == packet.offset, run.place &+ run.count == place {
                    run.count &+= actual
                } else {
                    addRun(slot, run)
                    run = (packet.offset, actual, place)
                }
            }
            place &+= packet.byteCount
        }
        addRun(slot, run)
        addFrameCopies(slot, intoGrant: true)
    }

    private mutating func addRun(_ slot: Int, _ run: (from: Int, count: Int, place: Int)) {
        if run.count > 0 { addCopies(slot, from: run.from, count: run.count, at: run.place, intoGrant: true) }
    }

    // MARK: answers

    private mutating func conclude(_ end: EndedURB) {
        let slot = end.slot
        let request = urbs[slot].request
        let port = ports[request.port.index]
        let byteCount = min(end.byteCount, request.transferByteCount)
        // What was answered without the device ended in the turn in which it began.
        if urbs[slot].device == nil || urbs[slot].device === port.device { leave(slot, port, end.status) }
        let hasFailed = end.status != .completed || urbs[slot].fault != nil
        let isShort = request.endsQueueIfShort && byteCount < request.transferByteCount
        conclude(slot, end.status, byteCount)
        guard request.mayHalt, hasFailed || isShort else { return }
        halt(port, RootPort.queue(of: request.pipe), by: urbs[slot].response)
        if !hasFailed { endQueue(request) }
    }

    private mutating func conclude(_ slot: Int, _ status: USBStatus, _ byteCount: Int) {
        if let fault = urbs[slot].fault { return refuse(slot, fault) }
        if urbs[slot].request.direction == .in {
            metrics.bytesIn &+= UInt64(truncatingIfNeeded: byteCount)
        } else {
            metrics.bytesOut &+= UInt64(truncatingIfNeeded: byteCount)
        }
        let errors = packetErrors(slot)
        metrics.packetErrors &+= UInt64(truncatingIfNeeded: errors)
        switch status {
        case .completed, .short: answer(slot, .okay, byteCount: byteCount, errorCount: errors)
        case .cancelled where urbs[slot].isUnlinked:
            refuse(slot, .unlinked, byteCount: byteCount, errorCount: errors)
        case .cancelled:
            refuse(slot, urbs[slot].dropped ?? .gone, byteCount: byteCount, errorCount: errors)
        default: refuse(slot, .transfer(status), byteCount: byteCount, errorCount: errors)
        }
    }

    private func packetErrors(_ slot: Int) -> Int {
        guard let device = urbs[slot].device else { return 0 }
        var errors = 0
        for index in 0..<urbs[slot].packetCount {
            switch device.packets[UInt32(slot), index].status {
            case .completed, .short: break
            default: errors &+= 1
            }
        }
        return errors
    }

    /// What the end of a transfer changes in its port.
    private mutating func leave(_ slot: Int, _ port: RootPort, _ status: USBStatus) {
        let request = urbs[slot].request
        switch urbs[slot].interception {
        case .setConfiguration(let value)? where status == .completed:
            port.configure(value)
            port.remainders = PacketRemainders()
            isMemoryStale = true
        case .setInterface(let interface, let alternate)? where status == .completed:
            port.set(interface, alternate: alternate)
            port.remainders = PacketRemainders()
            isMemoryStale = true
        case .setConfiguration?, .setInterface?, .clearHalt?, nil: break
        }
        if urbs[slot].packetCount > 0 {
            let index = RootPort.index(request.endpoint)
            port.framesInFlight[index] = port.framesInFlight[index] &- (port.framesInFlight[index] > 0 ? 1 : 0)
        }
        if urbs[slot].holdsQueue { port.barred &= ~RootPort.queue(of: request.pipe) }
    }

    /// A transfer was short that should not have been: the URBs behind it that belong to it, which the guest's driver
    /// is about to unlink, must not begin. They end without data, after it, so that the ring has room for what comes
    /// next.
    private mutating func endQueue(_ short: URBRequest) {
        var place = 0
        while place < parked.count {
            let slot = Int(parked[place])
            let request = urbs[slot].request
            guard request.port == short.port, request.endpoint == short.endpoint else {
                place &+= 1
                continue
            }
            guard request.endsQueueIfShort else { return }
            parked.remove(at: place)
            answer(slot, .okay)
        }
    }
}
