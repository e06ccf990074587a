// Pages into the receive ring, and the packets that come back in them.

internal import Hypervisor
internal import SharedRing
internal import XenWire

extension NetworkFrontQueue {
    /// Posts every page that the backend does not have. Page and id are the slot's place in the ring, as a response is
    /// found by its place (xen-netfront.c, `xennet_alloc_rx_buffers`).
    func post() {
        guard postsBuffers, !isClosed else { return }
        let before = receiveRing.requestProducer
        while receiveRing.requestProducer &- receiveRing.responseConsumer < UInt32(options.receiveBuffers) {
            let id = UInt16(truncatingIfNeeded: receiveRing.requestProducer & 255)
            let reference = receivePages.references[Int(id) % options.receiveBuffers]
            receiveRing.put(ReceiveRequest(id: id, reference: reference).words, count: NetWire.receiveStride)
        }
        if receiveRing.requestProducer != before, receiveRing.push() { notify(receivePort) }
    }

    /// Takes all packets, posts their pages again and arms the ring for the next event.
    func takePackets(_ receiver: (NetworkPacket) -> Void) throws(FrontendFailure) {
        var count = try look(&receiveRing) { (ring) throws(ResponseProducerFault) in try ring.poll() }
        while count > 0 {
            while receiveRing.waiting > 0 {
                if let packet = takePacket() {
                    statistics.receivedPackets += 1
                    statistics.receivedBytes += UInt64(packet.byteCount)
                    if packet.segmentation != nil { statistics.receivedSegmented += 1 }
                    receiver(packet)
                } else {
                    statistics.badPackets += 1
                }
            }
            post()
            count = try look(&receiveRing) { (ring) throws(ResponseProducerFault) in try ring.lastLook() }
        }
    }

    private struct Extras {
        var segmentation: Segmentation?
        var hash: PacketHash?
    }

    /// Puts the next packet together (`xennet_get_responses`); nil for one that Linux would drop.
    private func takePacket() -> NetworkPacket? {
        let slot = scratch.slot(at: 0, byteCount: NetWire.receiveStride)
        var place = takeSlot()
        let first = ReceiveResponse(decoding: slot)
        let extras = first.flags.contains(.extraInfo) ? takeExtras() : Extras()
        var response = first
        var (total, slots) = (0, 0)
        var isGood = extras != nil
        while true {
            slots += 1
            if response.id != place & 255 { statistics.misplacedResponses += 1 }
            let size = Int(response.status)
            if size >= 0, Int(response.offset) + size <= SharedPages.pageSize, slots < NetworkFrontQueue.maxSlots {
                let page = Int(place & 255) % options.receiveBuffers * SharedPages.pageSize
                receivePages.pages.copyOut(at: page + Int(response.offset), count: size, to: assembly, at: total)
                total += size
            } else {
                isGood = false
            }
            guard response.flags.contains(.moreData) else { break }
            guard receiveRing.waiting > 0 else { return nil }
            place = takeSlot()
            response = ReceiveResponse(decoding: slot)
        }
        let most = NetWire.maxSlotsPerPacket + (first.status <= 256 ? 1 : 0)
        guard isGood, let extras, slots <= most, total >= NetWire.minFirstSize, total <= NetWire.maxReceivedFrame else {
            return nil
        }
        if options.verifiesChecksums { verify(total, first.flags) }
        return NetworkPacket(
            queue: index,
            byteCount: total,
            flags: first.flags,
            segmentation: extras.segmentation,
            hash: extras.hash,
            slotCount: slots,
            pages: assembly
        )
    }

    /// Copies the next response into the scratch slot.
    /// - Returns: its place in the ring.
    private func takeSlot() -> UInt32 {
        let place = receiveRing.responseConsumer
        receiveRing.takeNext(
            into: scratch.slot(at: 0, byteCount: NetWire.receiveStride),
            count: NetWire.receiveStride
        )
        statistics.receivedSlots += 1
        return place
    }

    /// nil if one is missing or malformed.
    private func takeExtras() -> Extras? {
        var extras: Extras? = Extras()
        while true {
            guard receiveRing.waiting > 0 else { return nil }
            _ = takeSlot()
            let word = scratch.slot(at: 0, byteCount: NetWire.receiveStride).u64(0)
            switch try? ExtraInfo(word: word) {
            case .segmentation(let value): extras?.segmentation = value
            case .hash(let value): extras?.hash = value
            case .headroom: break
            case nil, .multicastAdd, .multicastDelete: extras = nil
            }
            guard ExtraInfo.hasMore(word: word) else { return extras }
        }
    }

    /// Completes a blank checksum and verifies any other one, counting what is wrong.
    private func verify(_ count: Int, _ flags: ReceiveFlags) {
        let packet = assembly.slot(at: 0, byteCount: count)
        let headers = PacketHeaders(parsing: packet, count: count)
        if flags.contains(.checksumBlank) {
            statistics.receivedBlank += 1
            guard let field = headers.checksumField else {
                statistics.wrongChecksums += 1
                return
            }
            InternetChecksum.complete(packet, start: headers.transportOffset, field: field, count: count)
        }
        if !InternetChecksum.isRight(packet, headers: headers, count: count) { statistics.wrongChecksums += 1 }
    }
}
