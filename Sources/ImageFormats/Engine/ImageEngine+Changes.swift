// Plans carried out: round by round, with the data, the copies and the pages of metadata of each.

internal import SharedRing
internal import SystemPackage

extension ImageEngine {
    /// A place for a plan; nil: all are in use.
    func takeChange() -> Int? {
        if let free = freeChanges.popLast() { return free }
        guard changes.count < ImageEngine.changeLimit else { return nil }
        changes.append(EngineChange())
        return changes.count - 1
    }

    func giveChange(_ index: Int) {
        changes[index].plan.removeAll()
        changes[index].request = -1
        changes[index].base = 0
        changes[index].round = 0
        changes[index].hasStored = false
        changes[index].isActive = false
        changes[index].awaitedPage = nil
        changes[index].errno = nil
        changes[index].undo.removeAll(keepingCapacity: true)
        freeChanges.append(index)
    }

    /// Begins the round at `round`: first the pages that it stores into, then all its steps.
    func beginRound(_ index: Int) {
        changes[index].isActive = true
        let steps = changes[index].plan.steps
        var end = changes[index].round
        while end < steps.count, steps[end] != .order, steps[end] != .flush { end += 1 }
        changes[index].roundEnd = end
        guard havePages(index) else { return }
        changes[index].awaitedPage = nil
        // Held while steps are started: none of them can end the round.
        changes[index].outstanding = 1
        for position in changes[index].round..<end { beginStep(index, steps[position]) }
        for use in changes[index].pages.indices {
            let place = changes[index].pages[use].place
            changes[index].pages[use].version = leaf.cache.places[place].version
            changes[index].outstanding &+= 1
            writePage(place)
        }
        stepEnded(index, nil)
    }

    /// Pins the pages that a round stores into. False: one is being read, and the round begins when it is there.
    private func havePages(_ index: Int) -> Bool {
        for position in changes[index].round..<changes[index].roundEnd {
            guard case .store(_, _, let offset) = changes[index].plan.steps[position] else { continue }
            let number = offset / UInt64(leaf.cache.pageSize)
            if let place = leaf.cache.find(number), leaf.cache.places[place].isValid {
                if changes[index].pages.contains(where: { $0.place == place }) { continue }
                leaf.cache.places[place].pins &+= 1
                changes[index].pages.append(.init(place: place))
            } else {
                _ = load(0, offset)
                changes[index].awaitedPage = number
                return false
            }
        }
        return true
    }

    private func beginStep(_ index: Int, _ step: ImagePlan.Step) {
        switch step {
        case .guest(let skip, let count, let offset):
            changes[index].outstanding &+= 1
            let inRequest = Int(truncatingIfNeeded: changes[index].base &+ skip)
            move(
                changes[index].request,
                isWrite: true,
                file: 0,
                offset: offset,
                skip: inRequest,
                Int(truncatingIfNeeded: count),
                change: index
            )
        case .keep(let disk, let count, let offset):
            forgetPages(offset, count)
            beginCopy(index, isKeep: true, from: disk, to: offset, count)
        case .copy(let from, let count, let offset):
            forgetPages(offset, count)
            beginCopy(index, isKeep: false, from: from, to: offset, count)
        case .zeroes(let offset, let count):
            forgetPages(offset, count)
            var done: UInt64 = 0
            while done < count {
                let piece = min(UInt64(ImageEngine.chunkBytes), count &- done)
                changes[index].outstanding &+= 1
                start(
                    .write,
                    file: 0,
                    offset: offset &+ done,
                    byteCount: Int(truncatingIfNeeded: piece),
                    in: pages,
                    at: 0,
                    for: .change(index)
                )
                done &+= piece
            }
        case .store(let value, let width, let offset): store(index, value, Int(width), offset)
        case .punch(let offset, let count):
            forgetPages(offset, count)
            changes[index].outstanding &+= 1
            start(
                .punch,
                file: 0,
                offset: offset,
                byteCount: Int(clamping: count),
                in: pages,
                at: 0,
                for: .change(index)
            )
        case .order, .flush: break
        }
    }

    private func store(_ index: Int, _ value: UInt64, _ width: Int, _ offset: UInt64) {
        guard let place = leaf.cache.find(offset / UInt64(leaf.cache.pageSize)) else {
            preconditionFailure("a pinned page is gone")
        }
        let inPage = Int(truncatingIfNeeded: offset) & (leaf.cache.pageSize - 1)
        let old = leaf.cache.store(value, width: width, at: inPage, in: place)
        changes[index].undo.append(.init(place: place, inPage: inPage, width: width, value: old))
        changes[index].hasStored = true
    }

    /// A step of a change's round has ended.
    func stepEnded(_ index: Int, _ errno: Errno?) {
        if let errno, changes[index].errno == nil { changes[index].errno = errno }
        changes[index].outstanding &-= 1
        guard changes[index].outstanding == 0 else { return }
        unpin(index)
        if let errno = changes[index].errno { return finish(index, errno) }
        changes[index].undo.removeAll(keepingCapacity: true)
        let steps = changes[index].plan.steps
        let end = changes[index].roundEnd
        guard end < steps.count else { return finish(index, nil) }
        changes[index].round = end + 1
        if steps[end] == .flush { joinFlush(change: index) } else { beginRound(index) }
    }

    private func unpin(_ index: Int) {
        for use in changes[index].pages { leaf.cache.places[use.place].pins &-= 1 }
        changes[index].pages.removeAll(keepingCapacity: true)
    }

    /// Ends a change. One that failed takes its stores of this round back; what is on the disk is not known then.
    func finish(_ index: Int, _ errno: Errno?) {
        unpin(index)
        let end: PlanEnd = errno == nil ? .committed : changes[index].hasStored ? .unclear : .failed
        leaf.format.ended(changes[index].plan, end)
        if leaf.format.wantsFlush { flush.isWanted = true }
        let request = changes[index].request
        giveChange(index)
        if request >= 0 {
            changeEnded(request, errno)
        } else if upkeep == .running(change: index) {
            upkeep = .idle
        }
        if flush.isWanted, !flush.isRunning { startFlush() }
    }

    /// Takes back the stores of a failed page.
    private func undo(_ index: Int, _ place: Int) {
        for entry in changes[index].undo.reversed() where entry.place == place {
            _ = leaf.cache.store(entry.value, width: entry.width, at: entry.inPage, in: place)
        }
        changes[index].undo.removeAll { $0.place == place }
    }

    // MARK: pages

    /// Reads a page of metadata, if it is not on its way already.
    func load(_ layer: Int, _ offset: UInt64) -> EngineRequest.Wait {
        let cache = layers[layer].cache
        let number = offset / UInt64(cache.pageSize)
        let wait = EngineRequest.Wait.page(layer: layer, number: number)
        if cache.find(number) != nil { return wait }
        guard let place = cache.admit(number) else { return .space }
        cache.places[place].pins = 1
        start(
            .read,
            file: layer,
            offset: number &* UInt64(cache.pageSize),
            byteCount: cache.pageSize,
            in: cache.pages,
            at: place &* cache.pageSize,
            for: .pageLoad(layer: layer, place: place)
        )
        return wait
    }

    func pageLoaded(_ layer: Int, _ place: Int, _ errno: Errno?) {
        let cache = layers[layer].cache
        let number = cache.places[place].number
        cache.places[place].pins &-= 1
        if let errno {
            cache.remove(place)
            pageFailed(layer, number, errno)
            return
        }
        cache.places[place].isValid = true
        for index in changes.indices where layer == 0 && changes[index].isActive && changes[index].awaitedPage == number
        {
            beginRound(index)
        }
        for index in copies.indices
        where copies[index].isActive && copies[index].wait == .page(layer: layer, number: number) {
            goOn(copy: index)
        }
        if layer == 0, upkeep == .page(number) { upkeep = .idle }
    }

    /// Everything that waited for a page fails with it.
    private func pageFailed(_ layer: Int, _ number: UInt64, _ errno: Errno) {
        for index in changes.indices where layer == 0 && changes[index].isActive && changes[index].awaitedPage == number
        {
            finish(index, errno)
        }
        let wait = EngineRequest.Wait.page(layer: layer, number: number)
        for index in copies.indices where copies[index].isActive && copies[index].wait == wait {
            copyEnded(index, errno)
        }
        for index in waiting where requests[index].wait == wait && requests[index].change < 0 {
            requests[index].errno = errno
            if let position = waiting.firstIndex(of: index) { waiting.remove(at: position) }
            if requests[index].outstanding == 0 { end(index) }
        }
        if layer == 0, upkeep == .page(number) { upkeep = .idle }
    }

    /// Drops the pages of a part of the leaf that is written beside the cache.
    private func forgetPages(_ offset: UInt64, _ count: UInt64) {
        let bytes = UInt64(leaf.cache.pageSize)
        // With clusters smaller than a page, neighbours share it.
        var number = offset / bytes
        while number <= (offset &+ count &- 1) / bytes {
            if let place = leaf.cache.find(number) {
                forget(place, DiskRange(start: offset, count: count))
            }
            number &+= 1
        }
    }

    private func forget(_ place: Int, _ range: DiskRange) {
        let known = leaf.cache.places[place]
        if known.pins == 0, !known.isDirty, !known.isWriting {
            leaf.cache.remove(place)
        } else {
            // A part of a page whose rest is in use. (Or an image that contradicts itself; it gets what it asks for.)
            leaf.cache.markStale(place, range)
        }
    }

    /// Writes a page's changes, after those that are being written.
    func writePage(_ place: Int) {
        let state = leaf.cache.places[place]
        guard state.isDirty, !state.isWriting else { return }
        guard let staging = freeStaging.popLast() else {
            if !pagesToWrite.contains(place) { pagesToWrite.append(place) }
            return
        }
        let size = leaf.cache.pageSize
        pages.copy(from: leaf.cache.pages, at: place &* size, count: size, to: staging)
        leaf.cache.places[place].isWriting = true
        leaf.cache.places[place].writing = state.version
        leaf.cache.places[place].dirty = 0
        leaf.cache.places[place].failure = nil
        // All runs are counted before one is started.
        var runs: [Range<Int>] = []
        let unit = max(writeUnit, size / 8)
        var position = 0
        while position < size {
            let mask = UInt8(truncatingIfNeeded: (1 << (unit * 8 / size) - 1) << (position * 8 / size))
            if state.dirty & mask != 0 {
                if let last = runs.last, last.upperBound == position {
                    runs[runs.count - 1] = last.lowerBound..<position + unit
                } else {
                    runs.append(position..<position + unit)
                }
            }
            position += unit
        }
        leaf.cache.places[place].writesLeft = runs.count
        for run in runs {
            start(
                .write,
                file: 0,
                offset: state.number &* UInt64(size) &+ UInt64(run.lowerBound),
                byteCount: run.count,
                in: pages,
                at: staging + run.lowerBound,
                for: .pageWrite(place: place, staging: staging)
            )
        }
    }

    func pageWritten(_ place: Int, _ staging: Int, _ errno: Errno?) {
        if let errno, leaf.cache.places[place].failure == nil { leaf.cache.places[place].failure = errno }
        leaf.cache.places[place].writesLeft &-= 1
        guard leaf.cache.places[place].writesLeft == 0 else { return }
        let errno = leaf.cache.places[place].failure
        freeStaging.append(staging)
        leaf.cache.places[place].isWriting = false
        let version = leaf.cache.places[place].writing
        if errno != nil { takeBack(place) }
        leaf.cache.places[place].written = errno == nil ? version : leaf.cache.places[place].version
        for index in changes.indices where changes[index].isActive {
            guard
                let use = changes[index].pages.firstIndex(where: {
                    $0.place == place && !$0.isWritten && $0.version != 0
                })
            else {
                continue
            }
            // After a failure everything that was to be written fails: what is on the disk is not known.
            let reaches = Int32(bitPattern: version &- changes[index].pages[use].version) >= 0
            guard errno != nil || reaches else { continue }
            changes[index].pages[use].isWritten = true
            stepEnded(index, errno)
        }
        writePage(place)
        while !freeStaging.isEmpty, let next = pagesToWrite.popLast() { writePage(next) }
    }

    /// A page could not be written: all changes that wait for it take their stores back, the last one first.
    private func takeBack(_ place: Int) {
        let users = changes.indices.filter {
            changes[$0].isActive && changes[$0].pages.contains { $0.place == place && $0.version != 0 && !$0.isWritten }
        }
        for index in users.sorted(by: { latest(changes[$0], place) > latest(changes[$1], place) }) {
            undo(index, place)
        }
        leaf.cache.places[place].dirty = 0
    }

    private func latest(_ change: EngineChange, _ place: Int) -> UInt32 {
        change.pages.first { $0.place == place }?.version ?? 0
    }
}
