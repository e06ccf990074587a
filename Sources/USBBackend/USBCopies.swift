// Grant copies between the guest's segments and our buffers: one batch per turn, every status checked.

internal import BackendCore
internal import Hypervisor
internal import SharedRing
internal import XenWire

extension USBRingState {
    /// Adds copies of a part of an URB's buffer. The batch must have room for one for each segment.
    /// - Parameters:
    ///   - first: the first byte within the guest's buffer; `first + count` is at most the buffer's length.
    ///   - place: where the bytes are in our pages.
    mutating func addCopies(_ slot: Int, from first: Int, count: Int, at place: Int, intoGrant: Bool) {
        let request = urbs[slot].request
        let bytes = ring.request(slot)
        var begin = 0
        for index in 0..<Int(request.segmentCount) {
            let segment = request.segment(index, in: bytes)
            let end = begin &+ Int(segment.length)
            let from = max(begin, first)
            let to = min(end, first &+ count)
            if from < to {
                add(slot, segment, skip: from &- begin, count: to &- from, at: place &+ from &- first, intoGrant)
            }
            begin = end
        }
    }

    /// Adds copies of all frame descriptors.
    mutating func addFrameCopies(_ slot: Int, intoGrant: Bool) {
        let request = urbs[slot].request
        let bytes = ring.request(slot)
        var place = USBBuffers.frames(slot)
        for index in 0..<Int(request.frameSegmentCount) {
            let segment = request.frameSegment(index, in: bytes)
            add(slot, segment, skip: 0, count: Int(segment.length), at: place, intoGrant)
            place &+= Int(segment.length)
        }
    }

    private mutating func add(
        _ slot: Int,
        _ segment: URBSegment,
        skip: Int,
        count: Int,
        at place: Int,
        _ intoGrant: Bool
    ) {
        facts.data.copies.add(
            reference: segment.reference,
            pageOffset: segment.offset &+ UInt16(truncatingIfNeeded: skip),
            byteCount: UInt16(truncatingIfNeeded: count),
            intoGrant: intoGrant,
            pages: buffers.pages,
            privateOffset: place
        )
        copyOwners.append(UInt16(truncatingIfNeeded: slot))
    }

    /// Runs the batch. An URB one of whose copies failed has its fault afterwards (XSA-361).
    mutating func runCopies() {
        let count = facts.data.runCopies(facts.grants, with: facts.path.domain) { index, failure in
            let slot = Int(copyOwners[index])
            switch failure {
            case .grant(let status): urbs[slot].fault = .grant(status)
            case .hypervisor(let failure): urbs[slot].fault = .hypervisor("\(failure)")
            }
        }
        guard count > 0 else { return }
        copyOwners.removeAll(keepingCapacity: true)
        metrics.copyBatches &+= 1
        metrics.copies &+= UInt64(truncatingIfNeeded: count)
    }
}
