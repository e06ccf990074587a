// From the ring to the order book: take, decode, fetch indirect segments, validate.

internal import BackendCore
internal import Hypervisor
internal import SharedRing
internal import XenWire

extension BlockRingState {
    /// Takes all requests that wait (a limited batch where the turn moves the data itself) and admits them.
    /// - Returns: how many were taken.
    mutating func intake() throws(Breakdown) -> Int {
        fresh.removeAll(keepingCapacity: true)
        let limit = medium?.isInMemory ?? false ? BlockRingState.requestsNow : .max
        let count = try ring.take(atMost: limit, into: &fresh)
        if count > 0 { admit() }
        return count
    }

    /// Admits what a killed predecessor left unanswered, oldest first.
    mutating func readmit() {
        fresh.removeAll(keepingCapacity: true)
        for slot in ring.unanswered { fresh.append(UInt16(truncatingIfNeeded: slot)) }
        admit()
    }

    /// Decodes and validates the requests in `fresh`; those that may run go to `runnable`, wrong ones are answered.
    private mutating func admit() {
        fetchIndirect()
        for slot in fresh {
            let slot = Int(slot)
            let raw = RawBlockRequest(ring.request(slot), abi: facts.abi)
            let isIndirect = raw.operation == .indirect
            if isIndirect, let fault = requests[slot].fault {
                refuse(slot, raw, fault)
                continue
            }
            do throws(BlockRequestFault) {
                let request =
                    isIndirect
                    ? try BlockRequest(
                        validating: raw,
                        try BlockIndirectPages(validating: raw, for: limits),
                        segments: indirect.slot(
                            at: slot &* BlockRingState.indirectBytes,
                            byteCount: BlockRingState.indirectBytes
                        ),
                        for: limits
                    )
                    : try BlockRequest(validating: raw, for: limits)
                requests[slot] = PendingRequest(request, isIndirect: isIndirect, takenAt: now)
                metrics.count(request)
                if order.admit(slot, requests[slot].extent) {
                    runnable.append(UInt16(truncatingIfNeeded: slot))
                } else {
                    metrics.parked &+= 1
                }
            } catch {
                refuse(slot, raw, medium == nil ? .noMedium : .request(error))
            }
        }
        fresh.removeAll(keepingCapacity: true)
    }

    /// Fetches the segments of all indirect requests in `fresh` with one batch of copies. What fails is left in the
    /// requests' `fault`.
    private mutating func fetchIndirect() {
        for slot in fresh {
            let slot = Int(slot)
            let raw = RawBlockRequest(ring.request(slot), abi: facts.abi)
            guard raw.operation == .indirect else { continue }
            requests[slot].fault = nil
            do throws(BlockRequestFault) {
                let pages = try BlockIndirectPages(validating: raw, for: limits)
                // At most 256 segments: they lie in the first page.
                facts.data.copies.add(
                    reference: raw.indirectGrant(0),
                    pageOffset: 0,
                    byteCount: UInt16(truncatingIfNeeded: pages.byteCount(ofPage: 0)),
                    intoGrant: false,
                    pages: indirect,
                    privateOffset: slot &* BlockRingState.indirectBytes
                )
                copyOwners.append(UInt16(truncatingIfNeeded: slot))
            } catch {
                requests[slot].fault = .request(error)
            }
        }
        runCopies()
    }

    /// Answers a malformed request.
    private mutating func refuse(_ slot: Int, _ raw: RawBlockRequest<Slot>, _ fault: BlockFault) {
        requests[slot] = PendingRequest(.unused, isIndirect: false, takenAt: now)
        let status = note(fault)
        put(BlockResponse(to: raw, status), for: slot)
    }
}
