// Flushes joined, the format's own work, and the way to a closed image.

internal import SystemPackage

extension ImageEngine {
    func joinFlush(change index: Int) {
        flush.nextChanges.append(index)
        if !flush.isRunning { startFlush() }
    }

    func joinFlush(request index: Int) {
        // Nothing was written since the last flush began, and that one has ended.
        if !flush.isNeeded, !flush.isRunning { return end(index) }
        flush.nextRequests.append(index)
        if !flush.isRunning { startFlush() }
    }

    /// Starts a flush for all that have asked so far.
    func startFlush() {
        flush.begin()
        leaf.format.flushBegan()
        start(.flush, file: 0, offset: 0, byteCount: 0, in: pages, at: 0, for: .flush)
    }

    func flushEnded(_ errno: Errno?) {
        flush.isRunning = false
        if errno != nil { flush.isNeeded = true }
        leaf.format.flushEnded(succeeded: errno == nil)
        let (changes, requests) = (flush.changes, flush.requests)
        flush.changes.removeAll(keepingCapacity: true)
        flush.requests.removeAll(keepingCapacity: true)
        for index in changes {
            if let errno { finish(index, errno) } else { beginRound(index) }
        }
        for index in requests {
            self.requests[index].errno = errno
            end(index)
        }
        if !flush.nextChanges.isEmpty || !flush.nextRequests.isEmpty || flush.isWanted, !flush.isRunning {
            startFlush()
        }
        switch closing {
        case .flushing: closing = errno == nil ? .givingBack : .closed
        case .flushingLast: closing = .closed
        case .open, .givingBack, .closed: break
        }
    }

    // MARK: upkeep

    /// Lets the format do its own work, while it has any.
    func runUpkeep() {
        guard upkeep == .idle, closing == .open || closing == .givingBack else { return }
        for _ in 0..<ImageEngine.stepsPerCall where upkeep == .idle {
            guard let change = takeChange() else { return }
            switch leaf.format.planUpkeep(isClosing: closing == .givingBack, leaf.cache, &changes[change].plan) {
            case .planned:
                if changes[change].plan.steps.isEmpty {
                    leaf.format.ended(changes[change].plan, .committed)
                    giveChange(change)
                    advanceWaiting()
                } else {
                    upkeep = .running(change: change)
                    beginRound(change)
                }
            case .metadata(let offset):
                giveChange(change)
                if case .page(_, let number) = load(0, offset) { upkeep = .page(number) } else { return }
            case .refused:
                giveChange(change)
                if closing == .givingBack { return giveUpClosing() }
                let before = waiting.count
                advanceWaiting()
                if waiting.count == before || !needsSpace { return }
            case .nothing, .wait:
                giveChange(change)
                if closing == .givingBack { return flushLast() }
                failStranded()
                return
            }
        }
        if upkeep == .idle { wantsTurn = true }
    }

    private var needsSpace: Bool { waiting.contains { requests[$0].wait == .space } }

    /// Requests that wait for space while nothing is under way that could give it would wait for ever.
    private func failStranded() {
        guard needsSpace, operationsInFlight == 0, nextOutgoing == outgoing.count,
            !changes.contains(where: { $0.isActive }), !requests.contains(where: { !$0.isFree && $0.outstanding > 0 })
        else { return }
        advanceWaiting()
        for index in waiting where requests[index].wait == .space && requests[index].change < 0 {
            requests[index].errno = .ioError
            if let position = waiting.firstIndex(of: index) { waiting.remove(at: position) }
            end(index)
        }
    }

    // MARK: closing

    /// Closes the image: all is flushed, claims are given back. No request may be under way, and none may follow.
    public func close() {
        guard closing == .open else { return }
        closing = .flushing
        goOn()
    }

    /// Whether `close` is done.
    public var isClosed: Bool { closing == .closed }

    func runClosing() {
        guard closing == .flushing, !flush.isRunning, upkeep == .idle, operationsInFlight == 0 else { return }
        startFlush()
    }

    private func flushLast() {
        if flush.isRunning { return }
        closing = .flushingLast
        startFlush()
    }

    private func giveUpClosing() { closing = .closed }
}
