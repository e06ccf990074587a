// From the order book to the disk and back: buffers, merging and splitting, submission, completion.

internal import BackendCore
internal import DiskImages
internal import HostIO
internal import Hypervisor
internal import SharedRing
internal import SystemPackage
internal import XenWire

extension BlockRingState {
    /// Starts all that is runnable, and what that makes runnable, until nothing is.
    mutating func start() {
        _ = enterEnded()
        if awaitsMedium() { return }
        var hasEnded = false
        repeat {
            gatherStarved()
            gatherRunnable()
            runCopies()
            launchReady()
            hasEnded = enterEnded()
        } while !runnable.isEmpty || (hasEnded && mayTakeBuffers && !starved.isEmpty)
    }

    /// Processes transfers that completed synchronously, and answers their requests.
    /// - Returns: false if there were none. No completion follows for these: what they freed must be used now.
    private mutating func enterEnded() -> Bool {
        if ended.isEmpty { return false }
        var position = 0
        // Grows during the loop: short transfers are resubmitted, barriers take their next step.
        while position < ended.count {
            transferEnded(Int(ended[position].index), result: ended[position].result)
            position &+= 1
        }
        ended.removeAll(keepingCapacity: true)
        deliver()
        return true
    }

    // MARK: buffers and data

    /// Requests that wait for buffers come first, in their order; but not before another queue that has waited longer.
    private mutating func gatherStarved() {
        while mayTakeBuffers, let slot = starved.first, takeBuffers(slot) {
            starved.removeFirst()
            gather(slot)
        }
    }

    private mutating func gatherRunnable() {
        for slot in runnable {
            let slot = Int(slot)
            if requests[slot].dataBytes == 0 {
                ready.append(UInt16(truncatingIfNeeded: slot))
            } else if starved.isEmpty, mayTakeBuffers, takeBuffers(slot) {
                gather(slot)
            } else {
                metrics.starved &+= 1
                starved.append(slot)
            }
        }
        runnable.removeAll(keepingCapacity: true)
    }

    private mutating func gather(_ slot: Int) {
        if requests[slot].request.kind != .read { moveData(slot, intoGrants: false) }
        ready.append(UInt16(truncatingIfNeeded: slot))
    }

    /// Submits all of `ready`: adjacent transfers as one, flushes as one.
    private mutating func launchReady() {
        var open = OpenTransfer()
        var flush = OpenTransfer()
        for slot in ready {
            let slot = Int(slot)
            if requests[slot].fault != nil || !isWithinMedium(slot) {
                answer(slot)
                continue
            }
            requests[slot].step = requests[slot].firstStep
            launch(slot, &open, &flush)
        }
        close(&open)
        close(&flush)
        ready.removeAll(keepingCapacity: true)
    }

    /// The medium can change between validation and start (a resize, another disc).
    private mutating func isWithinMedium(_ slot: Int) -> Bool {
        if medium == nil {
            fail(slot, .noMedium)
        } else if requests[slot].request.sector &+ requests[slot].request.sectorCount > limits.capacity {
            tell("access", at: requests[slot].request.byteOffset, 0)
            fail(slot, .truncatedImage)
        }
        return requests[slot].fault == nil
    }

    // MARK: merging and splitting

    /// A transfer that may still grow.
    struct OpenTransfer {
        var kind = DiskTransfer.Kind.flush
        var head: Int16 = -1
        var tail: Int16 = -1
        var offset: UInt64 = 0
        var byteCount = 0
        var runs = 0
        var isEmpty: Bool { head < 0 }
    }

    /// Puts a request's current step into an open transfer, or into transfers of its own.
    private mutating func launch(_ slot: Int, _ open: inout OpenTransfer, _ flush: inout OpenTransfer) {
        let request = requests[slot].request
        let bytes = requests[slot].dataBytes
        requests[slot].next = -1
        switch (requests[slot].step, request.kind) {
        case (.flushingBefore, _), (.flushingAfter, _):
            join(slot, &flush)
        case (_, .discard), (_, .secureDiscard):
            requests[slot].outstanding = 1
            submit(DiskTransfer(kind: .discard, slot: slot, offset: request.byteOffset, byteCount: 0))
        default:
            let kind: DiskTransfer.Kind = request.kind == .read ? .read : .write
            if bytes > BlockRingState.transferBytes {
                split(slot, kind, bytes)
                return
            }
            let runs = Int(requests[slot].chunkCount)
            let fits =
                !open.isEmpty && open.kind == kind && open.offset &+ UInt64(open.byteCount) == request.byteOffset
                && open.byteCount &+ bytes <= BlockRingState.transferBytes && open.runs &+ runs <= IORuns.capacity
            if fits {
                metrics.merged &+= 1
            } else {
                close(&open)
                open.kind = kind
                open.offset = request.byteOffset
            }
            open.byteCount &+= bytes
            open.runs &+= runs
            join(slot, &open)
        }
    }

    private mutating func join(_ slot: Int, _ open: inout OpenTransfer) {
        requests[slot].outstanding = 1
        let name = Int16(truncatingIfNeeded: slot)
        if open.isEmpty { open.head = name } else { requests[Int(open.tail)].next = name }
        open.tail = name
    }

    private mutating func close(_ open: inout OpenTransfer) {
        guard !open.isEmpty else { return }
        let transfer = DiskTransfer(
            kind: open.kind,
            head: open.head,
            offset: open.offset,
            byteCount: open.byteCount,
            skipped: 0,
            done: 0
        )
        submit(transfer)
        open = OpenTransfer()
    }

    private mutating func split(_ slot: Int, _ kind: DiskTransfer.Kind, _ bytes: Int) {
        let pieces = (bytes &+ BlockRingState.transferBytes &- 1) / BlockRingState.transferBytes
        requests[slot].outstanding = UInt8(truncatingIfNeeded: pieces)
        metrics.split &+= UInt64(truncatingIfNeeded: pieces &- 1)
        let start = requests[slot].request.byteOffset
        for piece in 0..<pieces {
            let skipped = piece &* BlockRingState.transferBytes
            var transfer = DiskTransfer(
                kind: kind,
                slot: slot,
                offset: start &+ UInt64(skipped),
                byteCount: min(BlockRingState.transferBytes, bytes &- skipped)
            )
            transfer.skipped = skipped
            submit(transfer)
        }
    }

    // MARK: submission

    private mutating func submit(_ transfer: DiskTransfer) {
        guard let index = freeTransfers.popLast() else {
            preconditionFailure("more transfers than pieces of requests")
        }
        transfers[Int(index)] = transfer
        issue(Int(index))
    }

    /// Submits what is left of a transfer to the loop; moves the data at once if that is only a copy.
    private mutating func issue(_ index: Int) {
        let transfer = transfers[index]
        let loop = facts.data.loop
        let slot = UInt32(truncatingIfNeeded: index)
        guard let medium else {
            preconditionFailure("a transfer without a medium")
        }
        let isNow = medium.isInMemory
        switch transfer.kind {
        case .flush where isNow:
            ended.append(EndedTransfer(index: slot, result: medium.file.synchronizeNow()))
        case .flush:
            loop.synchronize(medium.file, target: target, slot: slot)
        case .discard:
            let request = requests[Int(transfer.head)].request
            medium.discard(request, on: loop, target: target, slot: slot)
        case .read, .write:
            collectRuns(transfer)
            let offset = transfer.offset &+ UInt64(transfer.done)
            let pages = facts.data.pool.pages
            if isNow {
                bytesNow &+= runs.byteCount
                let result =
                    transfer.kind == .read
                    ? medium.file.readNow(at: offset, into: pages, runs: runs)
                    : medium.file.writeNow(at: offset, from: pages, runs: runs)
                ended.append(EndedTransfer(index: slot, result: result))
            } else if transfer.kind == .read {
                loop.read(medium.file, at: offset, into: pages, runs: runs, target: target, slot: slot)
            } else {
                loop.write(medium.file, at: offset, from: pages, runs: runs, target: target, slot: slot)
            }
        }
    }

    /// The buffers of what is left of a transfer, in disk order.
    private mutating func collectRuns(_ transfer: DiskTransfer) {
        runs.removeAll()
        var skip = transfer.skipped &+ transfer.done
        var left = transfer.byteCount &- transfer.done
        var slot = Int(transfer.head)
        while slot >= 0, left > 0 {
            let bytes = requests[slot].dataBytes
            var position = min(skip, bytes)
            skip &-= position
            while position < bytes, left > 0 {
                let inChunk = position % BufferPool.chunkBytes
                let count = min(BufferPool.chunkBytes &- inChunk, bytes &- position, left)
                let offset = chunkOffset(slot, position / BufferPool.chunkBytes) &+ inChunk
                runs.append(offset: offset, byteCount: count)
                position &+= count
                left &-= count
            }
            slot = Int(requests[slot].next)
        }
    }

    // MARK: completion

    /// A transfer completed: resubmits what is left, or takes its requests one step further.
    mutating func transferEnded(_ index: Int, result: Int32) {
        let transfer = transfers[index]
        if result == -Errno.interrupted.rawValue || result == -Errno.resourceTemporarilyUnavailable.rawValue {
            metrics.resubmitted &+= 1
            issue(index)
            return
        }
        let isData = transfer.kind == .read || transfer.kind == .write
        if isData, result > 0 {
            transfers[index].done &+= Int(result)
            if transfers[index].done < transfer.byteCount {
                metrics.resubmitted &+= 1
                issue(index)
                return
            }
        }
        freeTransfers.append(UInt16(truncatingIfNeeded: index))
        let fault = fault(of: transfer, result: result)
        if fault != nil, isData, requests[Int(transfer.head)].next >= 0 {
            retryOneByOne(transfer)
        } else {
            if fault != nil { tell(transfer.kind.rawValue, at: transfer.offset &+ UInt64(transfer.done), result) }
            credit(transfer, fault)
        }
    }

    private func fault(of transfer: DiskTransfer, result: Int32) -> BlockFault? {
        switch (transfer.kind, result) {
        case (.read, 0): .truncatedImage
        case (.write, 0): .storage(.ioError)
        case (_, ..<0): .storage(Errno(rawValue: 0 &- result))
        default: nil
        }
    }

    /// Logs what the host's storage did, with the image's path, the offset and what can be done.
    private mutating func tell(_ operation: String, at offset: UInt64, _ result: Int32) {
        if result == 0 &- Errno.notSupported.rawValue { return }
        if let text = medium?.image.newTrouble(operation, offset: offset, result: result) { log.failure(text) }
    }

    /// A merged transfer failed: retries each of its requests alone, so that only the one at fault is answered with an
    /// error.
    private mutating func retryOneByOne(_ transfer: DiskTransfer) {
        var slot = Int(transfer.head)
        while slot >= 0 {
            let next = Int(requests[slot].next)
            requests[slot].next = -1
            metrics.resubmitted &+= 1
            let request = requests[slot].request
            let bytes = requests[slot].dataBytes
            submit(DiskTransfer(kind: transfer.kind, slot: slot, offset: request.byteOffset, byteCount: bytes))
            slot = next
        }
    }

    private mutating func credit(_ transfer: DiskTransfer, _ fault: BlockFault?) {
        var slot = Int(transfer.head)
        while slot >= 0 {
            let next = Int(requests[slot].next)
            if let fault { fail(slot, fault) }
            requests[slot].outstanding &-= 1
            if requests[slot].outstanding == 0 { stepEnded(slot) }
            slot = next
        }
    }

    private mutating func stepEnded(_ slot: Int) {
        if requests[slot].fault == nil, let next = requests[slot].nextStep {
            requests[slot].step = next
            var open = OpenTransfer()
            var flush = OpenTransfer()
            launch(slot, &open, &flush)
            close(&open)
            close(&flush)
            return
        }
        arrived.append(UInt16(truncatingIfNeeded: slot))
    }

    /// Gives all that completed in this wake-up to the frontend: read data with one batch of copies, then the answers.
    mutating func deliver() {
        for slot in arrived where requests[Int(slot)].request.kind == .read && requests[Int(slot)].fault == nil {
            moveData(Int(slot), intoGrants: true)
        }
        runCopies()
        for slot in arrived { answer(Int(slot)) }
        arrived.removeAll(keepingCapacity: true)
    }
}

extension DiskTransfer {
    /// A transfer of one request.
    init(kind: Kind, slot: Int, offset: UInt64, byteCount: Int) {
        self.init(
            kind: kind,
            head: Int16(truncatingIfNeeded: slot),
            offset: offset,
            byteCount: byteCount,
            skipped: 0,
            done: 0
        )
    }
}
