// What a writable qcow2 image has claimed, and what waits to be given back.

/// Runs of clusters between the tables and the free space. All counts are of bytes, in whole clusters.
struct QCOW2Space {
    struct Run: Equatable {
        var offset: UInt64
        var count: UInt64
        /// They read as zeroes.
        var isZero: Bool
    }

    /// The file grows when something is written behind its end, and what was never written reads as zeroes; false for a
    /// block device.
    let canGrow: Bool
    /// What is given back to the host reads as zeroes.
    let canPunch: Bool
    /// Accounted for and used by nothing: theirs is the next change.
    var claims: [Run] = []
    /// Bytes in `claims`.
    var claimed: UInt64 = 0
    /// What changes made unused since the last flush began; before the flush that is running began; and what is
    /// durably unused, so that it can be given back.
    var quarantine: [DiskRange] = []
    var flushing: [DiskRange] = []
    var unused: [DiskRange] = []
    /// Clusters in use whose subclusters without data read as zeroes in the file too: some of those that were taken from
    /// zeroed claims.
    private(set) var blank: Set<UInt64> = []
    private static let blankLimit = 8192
    /// L2 tables, by their index in the L1 table, that a plan is making: others wait.
    var tablesInMaking: [UInt64] = []
    /// The search for holes has come this far, and the file's end is used beside it.
    var cursor: UInt64
    /// A request waits for space.
    var isWanted = false
    /// Claiming failed: no more of it before a request waits for it.
    var isPaused = false
    /// Why a request that waits gets none.
    var refusal: ImageFault?

    init(canGrow: Bool, canPunch: Bool, firstCluster: UInt64) {
        self.canGrow = canGrow
        self.canPunch = canPunch
        cursor = firstCluster
        claims.reserveCapacity(64)
        quarantine.reserveCapacity(256)
        flushing.reserveCapacity(256)
        unused.reserveCapacity(256)
        tablesInMaking.reserveCapacity(16)
    }

    /// Takes one cluster. Zeroed ones first where that matters, so that nothing has to be written around the data.
    mutating func take(_ bytes: UInt64) -> Run? {
        guard let last = claims.indices.last else { return nil }
        let index = claims.firstIndex { $0.isZero } ?? last
        let taken = Run(offset: claims[index].offset, count: bytes, isZero: claims[index].isZero)
        claims[index].offset &+= bytes
        claims[index].count &-= bytes
        claimed &-= bytes
        if claims[index].count == 0 { claims.remove(at: index) }
        return taken
    }

    mutating func give(_ run: Run) {
        claimed &+= run.count
        if let index = claims.firstIndex(where: { $0.offset &+ $0.count == run.offset && $0.isZero == run.isZero }) {
            claims[index].count &+= run.count
        } else {
            claims.append(run)
        }
    }

    /// Drops the last run's end.
    mutating func shortenLast(by count: UInt64) {
        guard let last = claims.indices.last else { return }
        claims[last].count &-= count
    }

    mutating func noteBlank(_ cluster: UInt64) {
        if blank.count == QCOW2Space.blankLimit { blank.removeAll(keepingCapacity: true) }
        blank.insert(cluster)
    }

    mutating func forgetBlank(_ cluster: UInt64) { blank.remove(cluster) }

    /// Claiming failed.
    mutating func refuse(_ fault: ImageFault) {
        if isWanted { refusal = fault }
        isWanted = false
        isPaused = true
    }

    mutating func flushBegan() {
        flushing.append(contentsOf: quarantine)
        quarantine.removeAll(keepingCapacity: true)
    }

    mutating func flushEnded(succeeded: Bool) {
        guard succeeded else { return }
        unused.append(contentsOf: flushing)
        flushing.removeAll(keepingCapacity: true)
    }
}
