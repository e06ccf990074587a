// Bulk packets of a SuperSpeed device, as a guest at high speed sees them: each as two.

internal import HostUSB
internal import SharedRing
internal import XenWire

extension USBRingState {
    /// On the host's bus a packet has up to 1024 bytes (USB 3.2, 9.6.6), and a transfer must have room for whole ones,
    /// or the device babbles. The guest assumes packets of 512 and may ask for any number of them. So the device is
    /// asked for whole packets, and if the guest wants only the first half of one, the second is kept for its next URB
    /// (`PacketRemainders`). Meanwhile nothing else is in flight on the endpoint.
    ///
    /// To the guest a packet of more than 512 bytes is a full one and a remainder; one of exactly 512 is full, although
    /// it ended the device's transfer. An URB that ends within a packet of 512 overflows, as on a bus.
    ///
    /// - Parameter wanted: bytes of the URB, or of all that are joined with it.
    mutating func receive(_ slot: Int, _ port: RootPort, _ device: any OpenUSBDevice, _ wanted: Int) {
        let endpoint = urbs[slot].request.endpoint
        let data = USBBuffers.data(slot)
        urbs[slot].stage = .running
        urbs[slot].device = device
        guard let rest = port.remainders.take(endpoint) else {
            isMemoryStale = true
            return finishAtOnce(slot, .transactionError, 0)
        }
        if !rest.isEmpty {
            isMemoryStale = true
            buffers.pages.write(rest, at: data)
            if rest.count > wanted { return finishAtOnce(slot, .overflow, wanted) }
            // A short packet, or all that was asked for.
            if rest.count < USBRingState.guestPacket || rest.count == wanted {
                return finishAtOnce(slot, .completed, rest.count)
            }
        }
        let missing = wanted &- rest.count
        let asked = (missing &+ USBRingState.hostPacket &- 1) & ~(USBRingState.hostPacket &- 1)
        urbs[slot].lead = rest.count
        urbs[slot].wanted = wanted
        holdQueue(slot, alsoIf: asked != missing)
        let transfer = USBTransfer(.bulk, endpoint: endpoint.rawValue, offset: data &+ rest.count, byteCount: asked)
        device.submit(transfer, slot: UInt32(slot))
    }

    /// Ends without the device. What is queued behind it still waits until it is answered.
    private mutating func finishAtOnce(_ slot: Int, _ status: USBStatus, _ byteCount: Int) {
        holdQueue(slot, alsoIf: true)
        finish(slot, status, byteCount)
    }

    private static var guestPacket: Int { 512 }
    private static var hostPacket: Int { 1024 }

    /// The guest's result of a transfer of whole packets.
    mutating func share(_ slot: Int, _ status: USBStatus, _ byteCount: Int) -> (USBStatus, Int) {
        let wanted = urbs[slot].wanted
        let total = urbs[slot].lead &+ byteCount
        guard total > wanted else { return (status, total) }
        switch status {
        case .completed, .short, .cancelled: break
        default: return (status, wanted)
        }
        if wanted & (USBRingState.guestPacket &- 1) != 0 { return (.overflow, wanted) }
        let request = urbs[slot].request
        let port = ports[request.port.index]
        guard port.device === urbs[slot].device else { return (status, wanted) }
        let place = USBBuffers.data(slot) &+ wanted
        let rest = buffers.pages.slot(at: place, byteCount: min(total &- wanted, USBRingState.guestPacket)).bytes
        port.remainders.keep(rest, of: request.endpoint)
        isMemoryStale = true
        return (status, wanted)
    }
}
