// Data between the frontend's grants and the pool's buffers: persistent mappings by memcpy, all else in one batch.

internal import BackendCore
internal import HostIO
internal import Hypervisor
internal import SharedRing
internal import XenWire

extension BlockRingState {
    /// A cache full of entries younger than this is thrashing: data is copied instead.
    private static let evictableAge: UInt64 = 1_000_000_000
    /// Mappings that may fail before the queue stops trying.
    private static let mappingFailureLimit = 16

    /// Moves all data of a request, or puts the copies that will do it into the batch: `runCopies` afterwards.
    mutating func moveData(_ slot: Int, intoGrants: Bool) {
        let segments = segments(of: slot)
        let request = requests[slot].request
        let pool = facts.data.pool.pages
        var position = 0
        for index in 0..<Int(request.segmentCount) {
            let segment = request.segment(index, in: segments)
            let page = facts.usesPersistentGrants ? persistentPage(segment.reference) : nil
            var pageOffset = segment.pageOffset
            var left = segment.byteCount
            // Two rounds where a segment of odd length crosses into the next chunk.
            while left > 0 {
                let inChunk = position % BufferPool.chunkBytes
                let count = min(left, BufferPool.chunkBytes &- inChunk)
                let buffer = chunkOffset(slot, position / BufferPool.chunkBytes) &+ inChunk
                switch (page, intoGrants) {
                case (let page?, true): page.copyIn(at: pageOffset, count: count, from: pool, at: buffer)
                case (let page?, false): page.copyOut(at: pageOffset, count: count, to: pool, at: buffer)
                case (nil, _):
                    if facts.data.copies.isFull { runCopies() }
                    facts.data.copies.add(
                        reference: segment.reference,
                        pageOffset: UInt16(truncatingIfNeeded: pageOffset),
                        byteCount: UInt16(truncatingIfNeeded: count),
                        intoGrant: intoGrants,
                        pages: pool,
                        privateOffset: buffer
                    )
                    copyOwners.append(UInt16(truncatingIfNeeded: slot))
                }
                position &+= count
                pageOffset &+= count
                left &-= count
            }
        }
    }

    /// Runs the batch; requests whose copies failed have a `fault` afterwards (XSA-361: each copy has its status).
    mutating func runCopies() {
        let count = facts.data.runCopies(facts.grants, with: facts.path.domain) { index, failure in
            fail(Int(copyOwners[index]), BlockFault(failure))
        }
        guard count > 0 else { return }
        metrics.copyBatches &+= 1
        metrics.copies &+= UInt64(truncatingIfNeeded: count)
        copyOwners.removeAll(keepingCapacity: true)
    }

    /// The page behind a grant if it is, or now becomes, persistently mapped. nil is never an error: the copy that
    /// follows reports what is wrong.
    private mutating func persistentPage(_ reference: GrantReference) -> SharedPages? {
        if let page = cache.lookup(reference, now: now) {
            metrics.persistentSegments &+= 1
            return page
        }
        if failedMappings >= BlockRingState.mappingFailureLimit { return nil }
        if cache.isFull, let oldest = cache.oldestUse, now &- oldest < BlockRingState.evictableAge { return nil }
        do throws(HypervisorFailure) {
            let page = try facts.grants.map([reference], of: facts.path.domain, access: .readWrite)
            cache.insert(reference, page, now: now)
            metrics.persistentSegments &+= 1
            return page
        } catch {
            // The budget may grant later what it refuses now, and asking is cheap.
            if error.errno != GrantBudget.refused { failedMappings += 1 }
            return nil
        }
    }

    /// Where chunk `index` of a request begins in the pool.
    func chunkOffset(_ slot: Int, _ index: Int) -> Int {
        Int(chunks[slot &* BlockRingState.chunksPerRequest &+ index]) &* BufferPool.chunkBytes
    }

    /// Takes the buffers that a request needs.
    /// - Returns: false if there are too few; then none was taken.
    mutating func takeBuffers(_ slot: Int) -> Bool {
        let bytes = requests[slot].dataBytes
        let count = (bytes &+ BufferPool.chunkBytes &- 1) / BufferPool.chunkBytes
        guard facts.data.pool.available >= count else { return false }
        for index in 0..<count {
            guard let chunk = facts.data.pool.take() else { return false }
            chunks[slot &* BlockRingState.chunksPerRequest &+ index] = chunk
            requests[slot].chunkCount = UInt8(truncatingIfNeeded: index &+ 1)
        }
        return true
    }

    /// Gives a request's buffers back.
    mutating func giveBuffers(_ slot: Int) {
        let count = Int(requests[slot].chunkCount)
        guard count > 0 else { return }
        for index in 0..<count { facts.data.pool.give(chunks[slot &* BlockRingState.chunksPerRequest &+ index]) }
        requests[slot].chunkCount = 0
        hasFreedBuffers = true
    }

    /// Records a request's first fault.
    mutating func fail(_ slot: Int, _ fault: BlockFault) {
        if requests[slot].fault == nil { requests[slot].fault = fault }
    }
}
