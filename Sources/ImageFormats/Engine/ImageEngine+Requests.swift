// Requests: who may run beside whom, where their bytes are, and what is done with each piece.

internal import SystemPackage

extension ImageEngine {
    /// Takes a request of a ring. Its range lies within the disk; a flush has none.
    /// - Parameter name: the ring's own number for it, in the orders.
    public func begin(client: Int, name: Int, _ kind: EngineRequestKind, _ range: DiskRange) -> EngineAdmission {
        let units = range.rounded(outTo: unitBytes)
        let request = EngineRequest(client: client, name: name, kind: kind, range: range, units: units)
        let index = add(request)
        if kind == .flush {
            joinFlush(request: index)
            return .pending
        }
        if kind == .read || kind == .write, waiting.isEmpty && exclusive == 0 || !isBlocked(index, upTo: waiting.count)
        {
            requests[index].hold = .shared
            if let place = whole(kind, range) {
                if kind == .write { flush.isNeeded = true }
                return .direct(file: place.file, offset: place.offset, handle: UInt32(truncatingIfNeeded: index))
            }
            requests[index].hold = .none
        }
        waiting.append(index)
        advanceWaiting()
        runUpkeep()
        return .pending
    }

    /// A request that `begin` called direct has been moved.
    public func finished(_ handle: UInt32, wasWrite: Bool) {
        if wasWrite { flush.isNeeded = true }
        release(Int(handle))
        if !waiting.isEmpty { goOn() }
    }

    private func add(_ request: EngineRequest) -> Int {
        if let free = freeRequests.popLast() {
            requests[free] = request
            return free
        }
        requests.append(request)
        return requests.count - 1
    }

    /// Where all of a range is, if that is one piece of data.
    private func whole(_ kind: EngineRequestKind, _ range: DiskRange) -> (file: Int, offset: UInt64)? {
        if kind == .read {
            guard case .data(let offset, let count, let file) = locate(range), count == range.count else { return nil }
            return (file, offset)
        }
        guard case .inPlace(let offset, let count) = leaf.format.placeWrite(range, leaf.cache), count == range.count
        else { return nil }
        return (0, offset)
    }

    // MARK: units

    /// Whether a request must wait for others: those that have its units for themselves, and those before it in the
    /// line that want them.
    private func isBlocked(_ index: Int, upTo position: Int) -> Bool {
        let units = requests[index].units
        if exclusive > 0 {
            for (other, request) in requests.enumerated()
            where request.hold == .exclusive && !request.isFree && other != index && request.units.overlaps(units) {
                return true
            }
        }
        for other in waiting[..<position] where requests[other].hold == .none && requests[other].units.overlaps(units) {
            return true
        }
        return false
    }

    /// Takes a request's units for itself.
    private func claimUnits(_ index: Int) -> Bool {
        if requests[index].hold == .exclusive { return true }
        let units = requests[index].units
        for (other, request) in requests.enumerated()
        where request.hold != .none && !request.isFree && other != index && request.units.overlaps(units) {
            return false
        }
        requests[index].hold = .exclusive
        exclusive &+= 1
        return true
    }

    func release(_ index: Int) {
        if requests[index].hold == .exclusive { exclusive &-= 1 }
        requests[index].hold = .none
        requests[index].isFree = true
        freeRequests.append(index)
    }

    // MARK: going on

    /// Tries all that wait, in their order.
    func advanceWaiting() {
        var position = 0
        while position < waiting.count {
            let index = waiting[position]
            if isStillWaiting(index) {
                position &+= 1
                continue
            }
            if requests[index].hold == .none, isBlocked(index, upTo: position) {
                requests[index].wait = .units
                position &+= 1
                continue
            }
            let isPlaced = advance(index)
            // What it began may have failed at once, and ended it.
            guard position < waiting.count, waiting[position] == index else { continue }
            if isPlaced {
                waiting.remove(at: position)
                if requests[index].outstanding == 0, requests[index].change < 0 { end(index) }
            } else {
                position &+= 1
            }
        }
    }

    private func isStillWaiting(_ index: Int) -> Bool {
        if requests[index].change >= 0 { return true }
        switch requests[index].wait {
        case .page(let layer, let number):
            return layers[layer].cache.find(number).map { !layers[layer].cache.places[$0].isValid } ?? false
        case .nothing, .units, .decoder, .space, .turn: return false
        }
    }

    /// Places as much of a request as can be placed now.
    /// - Returns: true if it need not be tried again: all of it is placed, or it has failed.
    private func advance(_ index: Int) -> Bool {
        requests[index].wait = .nothing
        switch requests[index].kind {
        case .read: return advanceRead(index)
        case .write: return advanceWrite(index)
        case .zero: return advanceChange(index, .zero)
        case .discard: return advanceChange(index, .discard)
        case .flush: return true
        }
    }

    func fail(_ index: Int, _ errno: Errno) {
        if requests[index].errno == nil { requests[index].errno = errno }
    }

    func rest(_ index: Int) -> DiskRange { requests[index].range.dropping(requests[index].placed) }

    private func advanceRead(_ index: Int) -> Bool {
        requests[index].hold = .shared
        for _ in 0..<ImageEngine.stepsPerCall {
            let rest = rest(index)
            if rest.isEmpty { return true }
            let skip = Int(truncatingIfNeeded: requests[index].placed)
            switch locate(rest) {
            case .missing(let layer, let offset):
                requests[index].wait = load(layer, offset)
                return false
            case .fault(let fault):
                fail(index, fault.errno)
                return true
            case .zero(let count):
                tell(
                    requests[index].client,
                    .zero(request: requests[index].name, skip: skip, byteCount: Int(truncatingIfNeeded: count))
                )
                requests[index].placed &+= count
            case .data(let offset, let count, let file):
                move(
                    index,
                    isWrite: false,
                    file: file,
                    offset: offset,
                    skip: skip,
                    Int(truncatingIfNeeded: count),
                    change: -1
                )
                requests[index].placed &+= count
            case .compressed(let cluster, let inCluster, let count, let file):
                switch decode(file, cluster) {
                case .later:
                    requests[index].wait = .decoder
                    return false
                case .failed(let errno):
                    fail(index, errno)
                    return true
                case .ready(let decoder):
                    copyOut(index, decoder, inCluster, skip, Int(truncatingIfNeeded: count))
                    requests[index].placed &+= count
                }
            }
        }
        requests[index].wait = .turn
        wantsTurn = true
        return false
    }

    private func advanceWrite(_ index: Int) -> Bool {
        if requests[index].hold == .none, !isAllInPlace(index) {
            if requests[index].errno != nil { return true }
            if requests[index].wait != .nothing { return false }
            guard claimUnits(index) else {
                requests[index].wait = .units
                return false
            }
        }
        for _ in 0..<ImageEngine.stepsPerCall {
            let rest = rest(index)
            if rest.isEmpty || requests[index].errno != nil { return true }
            switch leaf.format.placeWrite(rest, leaf.cache) {
            case .metadata(let offset):
                requests[index].wait = load(0, offset)
                return false
            case .fault(let fault):
                fail(index, fault.errno)
                return true
            case .inPlace(let offset, let count):
                let skip = Int(truncatingIfNeeded: requests[index].placed)
                move(
                    index,
                    isWrite: true,
                    file: 0,
                    offset: offset,
                    skip: skip,
                    Int(truncatingIfNeeded: count),
                    change: -1
                )
                requests[index].placed &+= count
            case .change: return advanceChange(index, .write)
            }
        }
        requests[index].wait = .turn
        wantsTurn = true
        return false
    }

    /// Whether a write changes no metadata. Then it shares its units; if not everything could be looked at, it waits.
    private func isAllInPlace(_ index: Int) -> Bool {
        var seen: UInt64 = 0
        let range = requests[index].range
        while seen < range.count {
            switch leaf.format.placeWrite(range.dropping(seen), leaf.cache) {
            case .inPlace(_, let count): seen &+= count
            case .change: return false
            case .metadata(let offset):
                requests[index].wait = load(0, offset)
                return false
            case .fault(let fault):
                fail(index, fault.errno)
                return false
            }
        }
        requests[index].hold = .shared
        return true
    }

    /// Plans the next change of a request that has its units for itself, or will have.
    private func advanceChange(_ index: Int, _ kind: ImageChange) -> Bool {
        guard claimUnits(index) else {
            requests[index].wait = .units
            return false
        }
        for _ in 0..<ImageEngine.stepsPerCall {
            let rest = rest(index)
            if rest.isEmpty || requests[index].errno != nil { return true }
            guard let change = takeChange() else {
                requests[index].wait = .space
                return false
            }
            switch leaf.format.plan(kind, rest, leaf.cache, &changes[change].plan) {
            case .planned(let count):
                precondition(count > 0 && count <= rest.count)
                changes[change].request = index
                changes[change].base = requests[index].placed
                requests[index].placed &+= count
                if changes[change].plan.steps.isEmpty {
                    leaf.format.ended(changes[change].plan, .committed)
                    giveChange(change)
                    continue
                }
                requests[index].change = change
                beginRound(change)
                return false
            case .metadata(let offset):
                giveChange(change)
                requests[index].wait = load(0, offset)
                return false
            case .wait, .nothing:
                giveChange(change)
                requests[index].wait = .space
                return false
            case .refused(let fault):
                giveChange(change)
                fail(index, fault.errno)
                return true
            }
        }
        requests[index].wait = .turn
        wantsTurn = true
        return false
    }
}
