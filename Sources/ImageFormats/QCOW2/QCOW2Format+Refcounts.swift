// Look-ups of refcounts in memory, and their changes as steps of a plan.

/// Refcounts that a plan in the making changes: several of less than a byte share one.
struct RefcountChanges {
    /// Values by place in the file, as they will be.
    private(set) var bytes: [(place: UInt64, value: UInt64, width: UInt8)] = []
    /// A block that the plan makes: zeroes so far.
    var block: (index: UInt64, offset: UInt64)?
    private var clusters: [UInt64] = []

    var steps: [ImagePlan.Step] { bytes.map { .store(value: $0.value, width: $0.width, offset: $0.place) } }

    func value(at place: UInt64) -> UInt64? { bytes.last { $0.place == place }?.value }
    func touches(_ cluster: UInt64) -> Bool { clusters.contains(cluster) }

    mutating func set(_ value: UInt64, at place: UInt64, width: Int, of cluster: UInt64) {
        clusters.append(cluster)
        if let index = bytes.lastIndex(where: { $0.place == place }) {
            bytes[index].value = value
        } else {
            bytes.append((place, value, UInt8(truncatingIfNeeded: width)))
        }
    }
}

extension QCOW2Format {
    /// The block that counts `1 << blockBits` clusters; 0 for none.
    func refcountBlock(_ index: UInt64, _ cache: MetadataCache) -> Lookup<UInt64> {
        let entries = UInt64(header.refcountTableClusters) << clusterBits / 8
        guard index < entries else {
            return .fault(
                ImageFault(.limit, "its refcount table is full; convert it into a new image with larger clusters")
            )
        }
        let place = header.refcountTableOffset &+ index &* 8
        guard let offset = cache.u64(at: place) else { return .missing(place) }
        guard offset == 0 || isCluster(offset) else {
            return .fault(ImageFault(.corrupt, "refcount block \(index) is not in the file"))
        }
        return .value(offset)
    }

    func hasBlock(_ cluster: UInt64, _ cache: MetadataCache) -> Bool {
        if case .value(let block) = refcountBlock(cluster >> counts.blockBits, cache) { block != 0 } else { false }
    }

    /// A cluster's refcount, 0 where nothing counts it.
    func refcount(_ cluster: UInt64, _ changes: RefcountChanges, _ cache: MetadataCache) -> Lookup<UInt64> {
        switch word(cluster, changes, cache) {
        case .missing(let offset): .missing(offset)
        case .fault(let fault): .fault(fault)
        case .value(nil): .value(0)
        case .value(let word?):
            .value(counts.order >= 3 ? word : word >> counts.position(of: cluster).shift & counts.maximum)
        }
    }

    func refcountIs(_ value: UInt64, _ cluster: UInt64, _ changes: RefcountChanges, _ cache: MetadataCache) -> Bool {
        if case .value(let found) = refcount(cluster, changes, cache) { found == value } else { false }
    }

    /// What stands where a cluster's refcount is: all of it, or the byte that it is a part of. nil: there is no block.
    private func word(_ cluster: UInt64, _ changes: RefcountChanges, _ cache: MetadataCache) -> Lookup<UInt64?> {
        let index = cluster >> counts.blockBits
        let (byte, width, _) = counts.position(of: cluster)
        if let new = changes.block, new.index == index { return .value(changes.value(at: new.offset &+ byte) ?? 0) }
        let block: UInt64
        switch refcountBlock(index, cache) {
        case .missing(let offset): return .missing(offset)
        case .fault(let fault): return .fault(fault)
        case .value(let found): block = found
        }
        if block == 0 { return .value(nil) }
        let place = block &+ byte
        if let changed = changes.value(at: place) { return .value(changed) }
        let found: UInt64? =
            switch width {
            case 1: cache.u8(at: place).map { UInt64($0) }
            case 2: cache.u16(at: place).map { UInt64($0) }
            case 4: cache.u32(at: place).map { UInt64($0) }
            default: cache.u64(at: place)
            }
        guard let found else { return .missing(place) }
        return .value(found)
    }

    /// Adds a refcount's change. False: it is not in memory, or there is no block.
    func set(_ value: UInt64, _ cluster: UInt64, _ changes: inout RefcountChanges, _ cache: MetadataCache) -> Bool {
        guard value <= counts.maximum, case .value(let old?) = word(cluster, changes, cache) else { return false }
        let (byte, width, shift) = counts.position(of: cluster)
        let index = cluster >> counts.blockBits
        var block: UInt64
        if let new = changes.block, new.index == index {
            block = new.offset
        } else {
            guard case .value(let found) = refcountBlock(index, cache) else { return false }
            block = found
        }
        let new = counts.order >= 3 ? value : old & ~(counts.maximum << shift) | value << shift
        changes.set(new, at: block &+ byte, width: width, of: cluster)
        return true
    }

    func lower(_ cluster: UInt64, to value: UInt64, _ changes: inout RefcountChanges, _ cache: MetadataCache) -> Bool {
        set(value, cluster, &changes, cache)
    }
}
