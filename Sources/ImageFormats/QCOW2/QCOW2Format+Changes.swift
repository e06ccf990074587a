// Planning a qcow2 image's writes and discards: allocation, copy-on-write, new L2 tables.

/// The kinds of notes in a plan.
enum QCOW2Note {
    /// A cluster taken from the claims; the second, from those that read as zeroes.
    static let claim: UInt8 = 0
    static let zeroClaim: UInt8 = 1
    /// What the change makes unused: a cluster, or the bytes of a compressed one.
    static let unused: UInt8 = 2
    /// An L2 table that the plan makes: its index in the L1 table is the note's offset.
    static let table: UInt8 = 3
    /// A cluster that was there, and gets data in subclusters that had none.
    static let filled: UInt8 = 4
}

extension QCOW2Format {
    // MARK: in place

    public func placeWrite(_ range: DiskRange, _ cache: MetadataCache) -> WritePlacement {
        let table: UInt64
        switch l2Table(range.start >> (clusterBits &+ UInt64(header.l2Bits)), cache) {
        case .missing(let offset): return .metadata(offset: offset)
        case .fault(let fault): return .fault(fault)
        case .value(let found):
            if found.offset == 0 || !found.isCopied { return .change }
            table = found.offset
        }
        let span = UInt64(1) << (clusterBits &+ UInt64(header.l2Bits))
        let inTable = min(range.count, span &- range.start & (span &- 1))
        var offset: UInt64 = 0
        var done: UInt64 = 0
        while done < inTable {
            let start = range.start &+ done
            let inCluster = start & (clusterBytes &- 1)
            switch entry(table, start >> clusterBits, cache) {
            case .missing(let offset) where done == 0: return .metadata(offset: offset)
            case .fault(let fault) where done == 0: return .fault(fault)
            case .missing, .fault: return .inPlace(offset: offset, count: done)
            case .value(let entry):
                let count = min(inTable &- done, clusterBytes &- inCluster)
                let isThere = entry.compressed == nil && entry.isCopied && isAllocated(entry, inCluster, count)
                if done == 0 {
                    if !isThere { return .change }
                    offset = entry.host &+ inCluster
                } else if !isThere || entry.host != offset &+ done {
                    return .inPlace(offset: offset, count: done)
                }
                done &+= count
            }
        }
        return .inPlace(offset: offset, count: done)
    }

    /// Whether all subclusters of a part of a cluster have their data.
    private func isAllocated(_ entry: QCOW2Entry, _ inCluster: UInt64, _ count: UInt64) -> Bool {
        let touched = mask(inCluster, count)
        return entry.host != 0 && entry.allocated & touched == touched
    }

    /// The subclusters that a part of a cluster touches.
    private func mask(_ inCluster: UInt64, _ count: UInt64) -> UInt32 {
        let first = inCluster / subclusterBytes
        let last = (inCluster &+ count &- 1) / subclusterBytes
        let upTo = last == 31 ? UInt32.max : UInt32(1) << UInt32(truncatingIfNeeded: last &+ 1) &- 1
        return upTo & ~(UInt32(1) << UInt32(truncatingIfNeeded: first) &- 1)
    }

    // MARK: plans

    public func plan(
        _ change: ImageChange,
        _ range: DiskRange,
        _ cache: MetadataCache,
        _ plan: inout ImagePlan
    ) -> PlanOutcome {
        guard space != nil else { return .refused(ImageFault(.unsupported, "is open for reading only")) }
        plan.removeAll()
        if change == .zero, header.version < 3 || !isWhole(range) {
            return .refused(ImageFault(.unsupported, "has no zeroes of this kind"))
        }
        if change == .discard, let skipped = discardSkips(range) { return .planned(count: skipped) }
        let index = range.start >> (clusterBits &+ UInt64(header.l2Bits))
        switch l2Table(index, cache) {
        case .missing(let offset): return .metadata(offset: offset)
        case .fault(let fault): return .refused(fault)
        case .value(let table):
            if space?.tablesInMaking.contains(index) ?? false { return .wait }
            if change != .write, table.offset == 0, !hasParent { return .planned(count: inTable(range)) }
            return planEntries(change, range, index, table, cache, &plan)
        }
    }

    private func inTable(_ range: DiskRange) -> UInt64 {
        let span = UInt64(1) << (clusterBits &+ UInt64(header.l2Bits))
        return min(range.count, span &- range.start & (span &- 1))
    }

    /// Whole clusters only; the disk's last one counts as whole.
    private func isWhole(_ range: DiskRange) -> Bool {
        range.start & (clusterBytes &- 1) == 0 && (range.end & (clusterBytes &- 1) == 0 || range.end == facts.byteCount)
    }

    /// How much of a discard has no effect, from its beginning: a part of a cluster, or all of it. nil: it begins with a
    /// whole cluster.
    private func discardSkips(_ range: DiskRange) -> UInt64? {
        // Version 2 cannot hide what a parent has.
        if header.version < 3, hasParent { return range.count }
        let inCluster = range.start & (clusterBytes &- 1)
        if inCluster != 0 { return min(range.count, clusterBytes &- inCluster) }
        return range.count >= clusterBytes || range.end == facts.byteCount ? nil : range.count
    }

    /// Plans as many clusters as one L2 table, the pages in memory and the claims allow.
    private func planEntries(
        _ change: ImageChange,
        _ range: DiskRange,
        _ index: UInt64,
        _ old: (offset: UInt64, isCopied: Bool),
        _ cache: MetadataCache,
        _ plan: inout ImagePlan
    ) -> PlanOutcome {
        var draft = PlanDraft(space: space, plan: plan)
        var table = old.offset
        let isNew = old.offset == 0 || !old.isCopied
        if isNew {
            guard let cluster = draft.claim(clusterBytes) else { return shortOfSpace }
            table = cluster.offset
            if old.offset == 0 {
                draft.plan.steps.append(.zeroes(offset: table, count: clusterBytes))
            } else {
                draft.plan.steps.append(.copy(from: old.offset, count: clusterBytes, offset: table))
                draft.plan.notes.append(.init(kind: QCOW2Note.unused, offset: old.offset, count: clusterBytes))
            }
            draft.plan.notes.append(.init(kind: QCOW2Note.table, offset: index, count: 0))
        }
        var done: UInt64 = 0
        let whole = inTable(range)
        while done < whole {
            let part = cluster(of: range, at: done, upTo: whole)
            if change == .discard, done > 0, discardSkips(DiskRange(start: part.start, count: whole &- done)) != nil {
                break
            }
            var entry = QCOW2Entry()
            if old.offset != 0 {
                switch self.entry(old.offset, part.start >> clusterBits, cache) {
                case .missing(let offset) where done == 0: return .metadata(offset: offset)
                case .fault(let fault) where done == 0: return .refused(fault)
                case .missing, .fault: return finish(change, &draft, done, index, table, isNew, &plan)
                case .value(let found): entry = found
                }
            }
            let place = entryPlace(table, part.start >> clusterBits)
            let isPlanned =
                change == .write
                ? planWrite(part, skip: done, entry, place, isShared: old.offset != 0 && !old.isCopied, &draft)
                : planZero(entry, place, keepsHole: change == .discard && !hasParent, &draft)
            if !isPlanned {
                if done == 0 { return shortOfSpace }
                break
            }
            done &+= part.count
        }
        return finish(change, &draft, done, index, table, isNew, &plan)
    }

    private func cluster(of range: DiskRange, at done: UInt64, upTo whole: UInt64) -> DiskRange {
        let start = range.start &+ done
        return DiskRange(start: start, count: min(whole &- done, clusterBytes &- start & (clusterBytes &- 1)))
    }

    private var shortOfSpace: PlanOutcome {
        guard let refusal = space?.refusal else {
            space?.isWanted = true
            space?.isPaused = false
            return .wait
        }
        // For one request: the next one makes upkeep try again.
        space?.refusal = nil
        return .refused(refusal)
    }

    /// Puts the stores behind the data, and the L1 entry behind a new table.
    private func finish(
        _ change: ImageChange,
        _ draft: inout PlanDraft,
        _ done: UInt64,
        _ index: UInt64,
        _ table: UInt64,
        _ isNew: Bool,
        _ plan: inout ImagePlan
    ) -> PlanOutcome {
        if draft.stores.isEmpty {
            // A discard that changes nothing: a table that would have been made for it is not. Or a write whose clusters
            // another request has allocated since it was placed.
            if change == .write { plan = draft.plan } else { plan.removeAll() }
            return .planned(count: done)
        }
        if !draft.plan.steps.isEmpty { draft.plan.steps.append(draft.mustBeDurable ? .flush : .order) }
        draft.plan.steps.append(contentsOf: draft.stores)
        if isNew {
            let place = header.l1Offset &+ index &* 8
            draft.plan.steps.append(.flush)
            draft.plan.steps.append(.store(value: table | QCOW2Entry.copied, width: 8, offset: place))
            draft.space?.tablesInMaking.append(index)
        }
        space = draft.space
        plan = draft.plan
        return .planned(count: done)
    }

    // MARK: one cluster

    /// Plans the write of a part of a cluster.
    /// - Returns: false if there is no space for it.
    private func planWrite(
        _ part: DiskRange,
        skip: UInt64,
        _ entry: QCOW2Entry,
        _ place: UInt64,
        isShared: Bool,
        _ draft: inout PlanDraft
    ) -> Bool {
        let inCluster = part.start & (clusterBytes &- 1)
        let disk = part.start &- inCluster
        let touched = mask(inCluster, part.count)
        var new = QCOW2Entry()
        new.isCopied = true
        var isZero = false
        if entry.compressed == nil, entry.host != 0, entry.isCopied, !isShared {
            new.host = entry.host
            new.allocated = entry.allocated | touched
            new.zeroes = entry.zeroes & ~touched
            isZero = space?.blank.contains(entry.host) ?? false
            draft.plan.notes.append(.init(kind: QCOW2Note.filled, offset: entry.host, count: clusterBytes))
            if entry.allocated & touched == touched {
                // It was there all the time: a plan may cover clusters that need none.
                draft.add(.guest(skip: skip, count: part.count, offset: new.host &+ inCluster))
                return true
            }
        } else {
            guard let claim = draft.claim(clusterBytes) else { return false }
            new.host = claim.offset
            isZero = claim.isZero
            let kept = entry.compressed != nil ? allSubclusters : entry.allocated
            new.allocated = kept | touched
            new.zeroes = entry.zeroes & ~new.allocated
            keep(kept & ~touched, disk, new.host, &draft)
            free(entry, &draft)
        }
        // What is written may be lost with the power while the new mapping is not: then the sectors must read as before.
        if !isZero || !readsZero(entry, touched) { draft.mustBeDurable = true }
        fill(
            entry,
            isInPlace: new.host == entry.host,
            isZero,
            inCluster..<inCluster &+ part.count,
            disk,
            new.host,
            &draft
        )
        draft.add(.guest(skip: skip, count: part.count, offset: new.host &+ inCluster))
        draft.store(new, place, header.hasExtendedL2)
        return true
    }

    /// Whether subclusters read as zeroes.
    private func readsZero(_ entry: QCOW2Entry, _ mask: UInt32) -> Bool {
        if entry.compressed != nil || entry.allocated & mask != 0 { return false }
        return !hasParent || entry.zeroes & mask == mask
    }

    /// Copies whole subclusters to their new place.
    private func keep(_ mask: UInt32, _ disk: UInt64, _ host: UInt64, _ draft: inout PlanDraft) {
        for subcluster in 0..<header.subclusters where mask >> UInt32(truncatingIfNeeded: subcluster) & 1 != 0 {
            let start = UInt64(subcluster) &* subclusterBytes
            keep(start..<start &+ subclusterBytes, disk, host, &draft)
        }
    }

    /// Copies a part of a cluster, as far as the disk reaches.
    private func keep(_ part: Range<UInt64>, _ disk: UInt64, _ host: UInt64, _ draft: inout PlanDraft) {
        let end = min(part.upperBound, facts.byteCount &- disk)
        draft.mustBeDurable = true
        if end < part.upperBound {
            // Behind the disk's end: stale bytes there would be data once the disk grows.
            let start = max(end, part.lowerBound)
            draft.add(.zeroes(offset: host &+ start, count: part.upperBound &- start))
        }
        if part.lowerBound >= end { return }
        draft.add(.keep(disk: disk &+ part.lowerBound, count: end &- part.lowerBound, offset: host &+ part.lowerBound))
    }

    /// Fills what the data leaves of its first and last subcluster with what is read there now.
    private func fill(
        _ entry: QCOW2Entry,
        isInPlace: Bool,
        _ isZero: Bool,
        _ data: Range<UInt64>,
        _ disk: UInt64,
        _ host: UInt64,
        _ draft: inout PlanDraft
    ) {
        let first = data.lowerBound / subclusterBytes
        let last = (data.upperBound &- 1) / subclusterBytes
        let edges = [
            (first, first &* subclusterBytes..<data.lowerBound),
            (last, data.upperBound..<(last &+ 1) &* subclusterBytes),
        ]
        for (subcluster, part) in edges where !part.isEmpty {
            let content = entry.compressed != nil ? .data : entry.content(Int(truncatingIfNeeded: subcluster))
            switch content {
            case .data where isInPlace: break
            case .parent where hasParent: keep(part, disk, host, &draft)
            case .data: keep(part, disk, host, &draft)
            case .zero, .parent:
                if isZero { break }
                draft.mustBeDurable = true
                draft.add(.zeroes(offset: host &+ part.lowerBound, count: part.upperBound &- part.lowerBound))
            }
        }
    }

    /// Plans that a whole cluster reads as zeroes.
    private func planZero(_ entry: QCOW2Entry, _ place: UInt64, keepsHole: Bool, _ draft: inout PlanDraft) -> Bool {
        var new = QCOW2Entry()
        if !keepsHole { new.zeroes = allSubclusters }
        if entry.host == 0, entry.compressed == nil {
            let readsZero = entry.zeroes == allSubclusters || !hasParent
            if readsZero { return true }
        }
        free(entry, &draft)
        draft.store(new, place, header.hasExtendedL2)
        return true
    }

    private func free(_ entry: QCOW2Entry, _ draft: inout PlanDraft) {
        if let compressed = entry.compressed {
            let start = compressed.offset & ~(clusterBytes &- 1)
            let last = min(compressed.offset &+ UInt64(compressed.byteCount), end)
            // Every cluster that it touches counts it.
            var cluster = start
            while cluster < last {
                draft.plan.notes.append(.init(kind: QCOW2Note.unused, offset: cluster, count: clusterBytes))
                cluster &+= clusterBytes
            }
        } else if entry.host != 0 {
            draft.plan.notes.append(.init(kind: QCOW2Note.unused, offset: entry.host, count: clusterBytes))
        }
    }
}

/// A plan that is being made, and the claims as they will be if it is.
private struct PlanDraft {
    var space: QCOW2Space?
    var plan: ImagePlan
    var stores: [ImagePlan.Step] = []
    /// What is copied or zeroed must not be lost with the old mapping.
    var mustBeDurable = false

    mutating func claim(_ bytes: UInt64) -> QCOW2Space.Run? {
        guard let run = space?.take(bytes) else { return nil }
        let kind = run.isZero ? QCOW2Note.zeroClaim : QCOW2Note.claim
        plan.notes.append(.init(kind: kind, offset: run.offset, count: run.count))
        return run
    }

    /// Adds a step, joined to the last one if it goes on where that ends.
    mutating func add(_ step: ImagePlan.Step) {
        switch (plan.steps.last, step) {
        case (.guest(let skip, let count, let offset), .guest(let next, let more, let place))
        where skip &+ count == next && offset &+ count == place:
            plan.steps[plan.steps.count - 1] = .guest(skip: skip, count: count &+ more, offset: offset)
        case (.keep(let disk, let count, let offset), .keep(let next, let more, let place))
        where disk &+ count == next && offset &+ count == place:
            plan.steps[plan.steps.count - 1] = .keep(disk: disk, count: count &+ more, offset: offset)
        default: plan.steps.append(step)
        }
    }

    mutating func store(_ entry: QCOW2Entry, _ place: UInt64, _ extended: Bool) {
        let words = entry.words(extended: extended)
        stores.append(.store(value: words.first, width: 8, offset: place))
        if extended { stores.append(.store(value: words.second, width: 8, offset: place &+ 8)) }
    }
}
