// The stages that inspect a packet: what the host, or the frontend, is to be told about it. Pure but for the packet.

internal import BackendCore
internal import HostNetwork
internal import SharedRing
internal import XenWire

/// What happens to a packet for the frontend.
enum ReceiveVerdict {
    case deliver
    /// To be segmented by a card, but with a VLAN tag, which no frontend handles: it is segmented here.
    case cut(TCPSegments)
    /// The frontend's hash selects another queue. The packet was not modified.
    case elsewhere(queue: Int)
    /// In a form that the frontend did not negotiate, or malformed.
    case unfit
    /// Multicast that the frontend did not ask for.
    case filtered
}

enum NetPipeline {
    /// What to tell the host about a packet whose pieces lie in `frames`.
    ///
    /// Headers usually lie in the first piece. Where a frontend scattered them they are gathered to be inspected; the
    /// host puts the first `headerLength` bytes into one piece in any case (XSA-423).
    static func transmit(
        _ record: TransmitRecord,
        _ frames: PrivatePages,
        _ scratch: NetScratch
    ) throws(OffloadFault) -> VirtioNetHeader {
        let first = scratch.pieces[record.pieceStart]
        var view = frames.slot(at: first.offset, byteCount: first.byteCount)
        var headers = PacketHeaders(parsing: view, count: first.byteCount)
        let isScattered = headers.fault == .truncated && record.pieceCount > 1
        if isScattered {
            let count = gather(record, frames, scratch)
            view = scratch.headers.slot(at: NetScratch.gather, byteCount: count)
            headers = PacketHeaders(parsing: view, count: count)
        }
        let offload = try TransmitOffload(
            flags: record.flags,
            segmentation: record.segmentation,
            headers: headers,
            byteCount: record.byteCount
        )
        if offload.makesBlank {
            InternetChecksum.makeBlank(view, headers: headers, count: record.byteCount)
            if isScattered { scatter(record, frames, scratch, field: headers.checksumField ?? 0) }
        }
        return offload.header
    }

    /// Copies the first bytes of a packet to one place.
    /// - Returns: how many.
    private static func gather(_ record: TransmitRecord, _ frames: PrivatePages, _ scratch: NetScratch) -> Int {
        var count = 0
        for piece in record.pieceStart..<record.pieceStart &+ record.pieceCount {
            let (offset, byteCount) = scratch.pieces[piece]
            let part = min(byteCount, NetScratch.gatherBytes &- count)
            if part == 0 { break }
            scratch.headers.copy(from: frames, at: offset, count: part, to: NetScratch.gather &+ count)
            count &+= part
        }
        return count
    }

    /// Copies the two bytes at `field` back to where they came from, perhaps one to each of two pieces.
    private static func scatter(
        _ record: TransmitRecord,
        _ frames: PrivatePages,
        _ scratch: NetScratch,
        field: Int
    ) {
        for byte in field..<field &+ 2 {
            var start = 0
            for piece in record.pieceStart..<record.pieceStart &+ record.pieceCount {
                let (offset, byteCount) = scratch.pieces[piece]
                if byte < start &+ byteCount {
                    frames.copy(
                        from: scratch.headers,
                        at: NetScratch.gather &+ byte,
                        count: 1,
                        to: offset &+ byte &- start
                    )
                    break
                }
                start &+= byteCount
            }
        }
    }

    /// What to tell the frontend about a packet; a blank checksum that it does not accept is filled in.
    /// - Parameters:
    ///   - packet: all of it, from the destination address on.
    ///   - own: the queue that has it; nil if it must deliver the packet whatever the hash says.
    static func receive(
        _ record: inout ReceiveRecord,
        _ packet: Slot,
        _ header: VirtioNetHeader,
        _ features: ReceiveFeatures,
        _ shared: NetSharedState,
        own: Int?
    ) -> ReceiveVerdict {
        guard packet.byteCount >= NetWire.minFirstSize, packet.byteCount <= NetWire.maxReceivedFrame else {
            return .unfit
        }
        if shared.isFiltering, !shared.passes(MACAddress(packet, at: 0)) { return .filtered }
        let looksAtHeaders = header.needsHeaders || shared.isHashing
        let headers = PacketHeaders(parsing: packet, count: looksAtHeaders ? packet.byteCount : 0)
        if shared.isHashing, let steering = shared.steering(packet, headers) {
            if let own, own != steering.queue { return .elsewhere(queue: steering.queue) }
            record.hash = steering.hash
        }
        if header.segmentKind != .none, headers.isTagged {
            let segments = TCPSegments(headers: headers, size: header.segmentSize, byteCount: packet.byteCount)
            return segments.map { .cut($0) } ?? .unfit
        }
        do throws(OffloadFault) {
            let offload = try ReceiveOffload(
                header: header,
                headers: headers,
                byteCount: packet.byteCount,
                features: features
            )
            if let blank = offload.blank {
                InternetChecksum.complete(packet, start: blank.start, field: blank.field, count: packet.byteCount)
            }
            record.flags = offload.flags
            record.segmentation = offload.segmentation
            return .deliver
        } catch {
            return .unfit
        }
    }
}
