// From the ring to URBs that can be carried out: take, validate, copy what goes to the device, read frame descriptors.

internal import BackendCore
internal import HostUSB
internal import Hypervisor
internal import SharedRing
internal import XenWire

extension USBRingState {
    /// Takes all requests that wait and dispatches them in ring order.
    ///
    /// The journal has a slot for each of the ring's, so that nothing but the ring itself ever delays an unlink.
    /// - Returns: how many were taken.
    mutating func intake() throws(Breakdown) -> Int {
        fresh.removeAll(keepingCapacity: true)
        guard try ring.take(into: &fresh) > 0 else { return 0 }
        for slot in fresh { admit(Int(slot)) }
        runCopies()
        for slot in fresh { dispatch(Int(slot)) }
        return fresh.count
    }

    /// Answers what a killed predecessor took and did not answer: the outcome of its transfers is unknown.
    mutating func answerLost() {
        for slot in ring.unanswered {
            let raw = raw(slot)
            urbs[slot] = PendingURB(raw, takenAt: now)
            do throws(URBFault) {
                urbs[slot].request = try URBRequest(validating: raw, portCount: ports.count)
            } catch {
                refuse(slot, .request(error))
                continue
            }
            if case .unlink = urbs[slot].request.kind { answer(slot, .okay) } else { refuse(slot, .lost) }
        }
        // Nor is it known which of the predecessor's answers the frontend has seen.
        for port in ports { halt(port, RootPort.dataQueues, by: ring.responseProducer &- 1) }
    }

    /// Validates a request and adds the copies that it needs before it can begin.
    private mutating func admit(_ slot: Int) {
        let raw = raw(slot)
        urbs[slot] = PendingURB(raw, takenAt: now)
        do throws(URBFault) {
            urbs[slot].request = try URBRequest(validating: raw, portCount: ports.count)
        } catch {
            urbs[slot].fault = .request(error)
            return
        }
        metrics.count(urbs[slot].request.kind)
        let request = urbs[slot].request
        if request.direction == .out, request.transferByteCount > 0 {
            addCopies(slot, from: 0, count: request.transferByteCount, at: USBBuffers.data(slot), intoGrant: false)
        }
        if request.frameSegmentCount > 0 { addFrameCopies(slot, intoGrant: false) }
    }

    // MARK: isochronous packets

    /// Reads the frame descriptors, and makes the packets of an URB to the device contiguous.
    /// - Returns: bytes of all packets.
    func arrange(_ slot: Int, _ device: any OpenUSBDevice) throws(URBFault) -> Int {
        let request = urbs[slot].request
        let frames = buffers.frames(slot, byteCount: max(request.frameByteCount, USBWire.packetDescriptorSize))
        let packets = try IsochronousPackets(validating: frames, of: request)
        var total = 0
        var isPacked = true
        for index in 0..<packets.count {
            let packet = packets.packet(index)
            device.packets[UInt32(slot), index] = USBPacket(byteCount: UInt32(packet.byteCount))
            isPacked = isPacked && packet.offset == total
            total &+= packet.byteCount
        }
        if request.direction == .out, !isPacked { pack(slot, packets) }
        return total
    }

    /// Closes the gaps between packets. They lie in their order, so each moves towards the beginning.
    private func pack(_ slot: Int, _ packets: IsochronousPackets<Slot>) {
        let data = USBBuffers.data(slot)
        var end = 0
        for index in 0..<packets.count {
            let packet = packets.packet(index)
            buffers.pages.copy(
                from: buffers.pages,
                at: data &+ packet.offset,
                count: packet.byteCount,
                to: data &+ end
            )
            end &+= packet.byteCount
        }
    }
}
