// Claiming space ahead of the changes, and giving back what they made unused.

internal import SystemPackage

extension QCOW2Format: ImageFormat {
    /// Space is claimed when fewer bytes than this are left, or fewer clusters.
    private static let lowWater: UInt64 = 2 << 20
    private static let claimBytes: UInt64 = 4 << 20
    private static let claimClusters: ClosedRange<UInt64> = 8...256
    /// Clusters given back by one plan, and looked at in one search.
    private static let clustersPerPlan = 64
    private static let searchedPerPlan: UInt64 = 4096
    /// Unused clusters that wait for a flush before one is asked for.
    private static let quarantineLimit = 1024

    /// Clusters that are claimed at once.
    var runClusters: UInt64 {
        min(
            max(QCOW2Format.claimBytes / clusterBytes, QCOW2Format.claimClusters.lowerBound),
            QCOW2Format.claimClusters.upperBound
        )
    }

    private var wantsClaims: Bool {
        guard let space else { return false }
        return space.claimed < min(QCOW2Format.lowWater, runClusters / 2 &* clusterBytes)
            || space.claimed < 4 &* clusterBytes
    }

    public var wantsFlush: Bool { space.map { $0.quarantine.count > QCOW2Format.quarantineLimit } ?? false }

    public func flushBegan() { space?.flushBegan() }
    public func flushEnded(succeeded: Bool) { space?.flushEnded(succeeded: succeeded) }

    public func ended(_ plan: borrowing ImagePlan, _ end: PlanEnd) {
        for note in plan.notes {
            switch note.kind {
            case QCOW2Note.table: space?.tablesInMaking.removeAll { $0 == note.offset }
            case QCOW2Note.filled where end != .committed: space?.forgetBlank(note.offset)
            case QCOW2Note.zeroClaim where end == .committed:
                if header.hasExtendedL2 { space?.noteBlank(note.offset) }
            case QCOW2Note.unused where end == .committed:
                space?.forgetBlank(note.offset)
                space?.quarantine.append(DiskRange(start: note.offset, count: note.count))
            case QCOW2Note.claim, QCOW2Note.zeroClaim:
                // It may hold a part of the data that failed.
                if end == .failed { space?.give(.init(offset: note.offset, count: note.count, isZero: false)) }
            case QCOW2Upkeep.claimed, QCOW2Upkeep.claimedHole:
                claimEnded(note, end)
            case QCOW2Upkeep.reused where end == .committed:
                // It was punched, which a file system that keeps files' sizes makes zeroes of.
                let isZero = space?.canPunch ?? false
                space?.give(.init(offset: note.offset, count: note.count, isZero: isZero))
            case QCOW2Upkeep.reused, QCOW2Upkeep.lowered:
                break
            default: break
            }
        }
    }

    private func claimEnded(_ note: ImagePlan.Note, _ end: PlanEnd) {
        guard end == .committed else {
            space?.refuse(ImageFault(.storage(.noSpace), "no space could be claimed"))
            return
        }
        space?.isWanted = false
        space?.give(.init(offset: note.offset, count: note.count, isZero: note.kind == QCOW2Upkeep.claimed))
    }

    public func planUpkeep(isClosing: Bool, _ cache: MetadataCache, _ plan: inout ImagePlan) -> PlanOutcome {
        guard space != nil else { return .nothing }
        plan.removeAll()
        if isClosing, let outcome = planReturn(cache, &plan) { return outcome }
        if !(space?.unused.isEmpty ?? true) { return planGivingBack(isClosing: isClosing, cache, &plan) }
        if isClosing || !wantsClaims || space?.isPaused ?? false { return .nothing }
        return planClaim(cache, &plan)
    }

    // MARK: giving back

    /// Lowers the refcounts of what is durably unused. What nobody else uses either becomes a claim again, its refcount
    /// as it is, if claims are wanted.
    private func planGivingBack(isClosing: Bool, _ cache: MetadataCache, _ plan: inout ImagePlan) -> PlanOutcome {
        var taken = 0
        var lowered = RefcountChanges()
        var punched: [DiskRange] = []
        let unused = space?.unused ?? []
        for range in unused.suffix(QCOW2Format.clustersPerPlan).reversed() {
            switch refcount(range.start >> clusterBits, lowered, cache) {
            case .missing(let offset):
                if taken == 0 { return .metadata(offset: offset) }
            case .fault(let fault):
                if taken == 0 {
                    // It cannot be given back: a leak.
                    space?.unused.removeLast()
                    return .refused(fault)
                }
            case .value(let count) where count == 0:
                taken += 1
                continue
            case .value(1)
            where !isClosing && (space?.claimed ?? 0) < QCOW2Format.claimBytes
                && !lowered.touches(range.start >> clusterBits):
                plan.notes.append(.init(kind: QCOW2Upkeep.reused, offset: range.start, count: range.count))
                punched.append(range)
                taken += 1
                continue
            case .value(let count):
                guard lower(range.start >> clusterBits, to: count &- 1, &lowered, cache) else {
                    if taken == 0 { return .refused(ImageFault(.corrupt, "a refcount cannot be lowered")) }
                    break
                }
                if count == 1 { punched.append(range) }
                taken += 1
                continue
            }
            break
        }
        space?.unused.removeLast(taken)
        plan.steps.append(contentsOf: lowered.steps)
        if !lowered.steps.isEmpty, !punched.isEmpty { plan.steps.append(.order) }
        for range in punched where space?.canPunch ?? false {
            plan.steps.append(.punch(offset: range.start, count: range.count))
        }
        // What is taken for zeroes must be that after a power failure, too.
        if plan.notes.contains(where: { $0.kind == QCOW2Upkeep.reused }), !plan.steps.isEmpty {
            plan.steps.append(.flush)
        }
        return .planned(count: 0)
    }

    /// Gives back what was claimed and not used.
    private func planReturn(_ cache: MetadataCache, _ plan: inout ImagePlan) -> PlanOutcome? {
        guard let run = space?.claims.last else { return nil }
        var lowered = RefcountChanges()
        var count: UInt64 = 0
        while count < run.count, lowered.steps.count < 256 {
            let cluster = (run.offset &+ run.count &- count &- clusterBytes) >> clusterBits
            switch refcount(cluster, lowered, cache) {
            case .missing(let offset): if count == 0 { return .metadata(offset: offset) }
            case .fault(let fault): if count == 0 { return .refused(fault) }
            case .value(let value):
                guard value > 0, lower(cluster, to: value &- 1, &lowered, cache) else { break }
                count &+= clusterBytes
                continue
            }
            break
        }
        if count == 0 { return .refused(ImageFault(.corrupt, "a claim has no refcount")) }
        space?.claimed &-= count
        if count == run.count {
            space?.claims.removeLast()
        } else {
            space?.shortenLast(by: count)
        }
        plan.steps.append(contentsOf: lowered.steps)
        return .planned(count: 0)
    }

    // MARK: claiming

    /// Plans the next run: from holes that a bounded search finds, else from behind all that is in the file.
    private func planClaim(_ cache: MetadataCache, _ plan: inout ImagePlan) -> PlanOutcome {
        switch findHoles(cache) {
        case .missing(let offset): return .metadata(offset: offset)
        case .fault(let fault): return refuse(fault)
        case .value(let run?): return planClaim(of: run, kind: QCOW2Upkeep.claimedHole, cache, &plan)
        case .value(nil): break
        }
        guard space?.canGrow ?? false else {
            if (space?.cursor ?? 0) < end { return .planned(count: 0) }
            return refuse(ImageFault(.storage(.noSpace), "the device is full"))
        }
        switch findBehindTheEnd(cache) {
        case .missing(let offset): return .metadata(offset: offset)
        case .fault(let fault): return refuse(fault)
        case .value(let run): return planClaim(of: run, kind: QCOW2Upkeep.claimed, cache, &plan)
        }
    }

    private func refuse(_ fault: ImageFault) -> PlanOutcome {
        space?.refuse(fault)
        return .refused(fault)
    }

    /// A run of clusters that nothing uses, below the end of the file; the cursor goes on with each call.
    private func findHoles(_ cache: MetadataCache) -> Lookup<DiskRange?> {
        guard var cursor = space?.cursor else { return .value(nil) }
        var start: UInt64?
        for _ in 0..<QCOW2Format.searchedPerPlan where cursor < end {
            switch refcount(cursor >> clusterBits, RefcountChanges(), cache) {
            case .missing(let offset):
                space?.cursor = start ?? cursor
                return .missing(offset)
            case .fault(let fault): return .fault(fault)
            case .value(0) where isCluster(cursor) && hasBlock(cursor >> clusterBits, cache):
                if start == nil { start = cursor }
                cursor &+= clusterBytes
                // A run lies in one refcount block.
                let isFull = cursor &- (start ?? cursor) >= runClusters &* clusterBytes
                if isFull || (cursor >> clusterBits) & (1 << counts.blockBits &- 1) == 0 { break }
                continue
            case .value:
                if start != nil { break }
                cursor &+= clusterBytes
                continue
            }
            break
        }
        space?.cursor = cursor
        return .value(start.map { DiskRange(start: $0, count: cursor &- $0) })
    }

    /// Clusters behind the end of the file, where nothing was ever written: nothing can name them, whatever their
    /// refcounts say. (A predecessor that was killed had claimed them.)
    private func findBehindTheEnd(_ cache: MetadataCache) -> Lookup<DiskRange> {
        guard end < 1 << 55 else { return .fault(ImageFault(.limit, "its file is as large as it can be")) }
        let first = end >> clusterBits
        switch refcount(first, RefcountChanges(), cache) {
        case .missing(let offset): return .missing(offset)
        case .fault(let fault): return .fault(fault)
        case .value:
            let inBlock = (1 << counts.blockBits) &- first & (1 << counts.blockBits &- 1)
            return .value(DiskRange(start: end, count: min(runClusters, inBlock) &* clusterBytes))
        }
    }

    /// Accounts for a run: refcounts of 1, durable before any of it is used. A refcount block that is missing becomes the
    /// run's first cluster, and counts itself.
    private func planClaim(of run: DiskRange, kind: UInt8, _ cache: MetadataCache, _ plan: inout ImagePlan)
        -> PlanOutcome
    {
        let first = run.start >> clusterBits
        let index = first >> counts.blockBits
        var block: UInt64
        switch refcountBlock(index, cache) {
        case .missing(let offset): return .metadata(offset: offset)
        case .fault(let fault): return refuse(fault)
        case .value(let found): block = found
        }
        var changes = RefcountChanges()
        let isNew = block == 0
        if isNew {
            block = run.start
            plan.steps.append(.zeroes(offset: block, count: clusterBytes))
            plan.steps.append(.order)
            changes.block = (index, block)
        }
        if kind == QCOW2Upkeep.claimed {
            // The file reaches so far, durably, before a table names anything there: a table that was written and a file
            // that was not yet longer when the power failed would contradict each other.
            let last = min(clusterBytes, UInt64(MetadataCache.pageBytes))
            plan.steps.insert(.zeroes(offset: run.end &- last, count: last), at: 0)
        }
        var claimed = DiskRange(start: run.start, count: 0)
        for cluster in first..<run.end >> clusterBits {
            let isFree = kind == QCOW2Upkeep.claimed || refcountIs(0, cluster, changes, cache)
            guard isFree, set(1, cluster, &changes, cache) else { break }
            claimed.count &+= clusterBytes
        }
        guard !claimed.isEmpty else { return refuse(ImageFault(.corrupt, "its refcounts changed under us")) }
        plan.steps.append(contentsOf: changes.steps)
        plan.steps.append(.flush)
        if isNew {
            plan.steps.append(.store(value: block, width: 8, offset: header.refcountTableOffset &+ index &* 8))
            plan.steps.append(.flush)
            claimed = claimed.dropping(clusterBytes)
        }
        end = max(end, run.start &+ clusterBytes, claimed.end)
        if !claimed.isEmpty { plan.notes.append(.init(kind: kind, offset: claimed.start, count: claimed.count)) }
        return .planned(count: 0)
    }
}

/// The kinds of notes in upkeep's plans.
enum QCOW2Upkeep {
    /// Claimed from behind the end, and from holes.
    static let claimed: UInt8 = 16
    static let claimedHole: UInt8 = 17
    /// Unused space that becomes a claim without a change of its refcount.
    static let reused: UInt8 = 18
    static let lowered: UInt8 = 19
}
