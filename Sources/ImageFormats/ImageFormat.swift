// What an image format does: bookkeeping over metadata in memory. It never does I/O, and it never waits.

/// One image file's format, for reading and, in a chain's leaf, for writing.
///
/// A format answers where bytes are and plans what must be written to change that. `ImageEngine` carries the plans out,
/// with whatever does its I/O: the worker's loop, a synchronous driver, or one that records every write for crash tests.
///
/// Metadata is read through a `MetadataCache`, a bounded cache of the file's pages. A page that is not there is asked
/// for by returning `.metadata`; the engine reads it and asks again. So a function here may be called many times for
/// one request, and must change nothing before it returns its final answer.
///
/// Nothing in the file's bytes may trap or loop without a bound: sums are checked, offsets are compared with the file's
/// end, walks have limits.
public protocol ImageFormat: AnyObject {
    /// What it is, for reports.
    var facts: FormatFacts { get }

    /// Where the first bytes of a range are. The range lies within the disk and is not empty.
    func place(_ range: DiskRange, _ cache: MetadataCache) -> Placement

    /// Where the first bytes of a range would be written. Only for an image that is open for writing.
    func placeWrite(_ range: DiskRange, _ cache: MetadataCache) -> WritePlacement

    /// Plans a change of the first bytes of a range, at least up to the end of the first unit in it.
    ///
    /// No other request touches any of the range's units until `ended`. With `.planned` the format has reserved what the
    /// plan uses, and keeps that reserved until `ended`.
    func plan(_ change: ImageChange, _ range: DiskRange, _ cache: MetadataCache, _ plan: inout ImagePlan) -> PlanOutcome

    /// A plan of `plan` or `planUpkeep` has been carried out, or has failed.
    func ended(_ plan: borrowing ImagePlan, _ end: PlanEnd)

    /// Plans what the format needs for itself: space claimed ahead, freed space given back. One such plan runs at a
    /// time. Asked again after every event that could give it work.
    /// - Parameter isClosing: the image is being closed; when it answers `.nothing`, the file is as it should be left.
    func planUpkeep(isClosing: Bool, _ cache: MetadataCache, _ plan: inout ImagePlan) -> PlanOutcome

    /// A flush begins: all that has `ended` so far will be durable when it succeeds. One runs at a time.
    func flushBegan()
    /// It has ended.
    func flushEnded(succeeded: Bool)
    /// Whether the format has reason to want a flush soon (freed space that waits for one).
    var wantsFlush: Bool { get }
}

/// What a format says of its image. Sizes in bytes.
public struct FormatFacts: Equatable, Sendable {
    /// `qcow2`, `vhd`: the word of the disk line.
    public var name: String
    /// The disk's size, a multiple of 512.
    public var byteCount: UInt64
    /// Requests that change metadata are alone in their units of the disk; a power of two: the cluster, the block.
    public var unitBytes: UInt64
    /// The unit in which space is given back.
    public var discardGranularity: UInt64
    /// The smallest piece of metadata that is written at once; 512 for formats that have something behind their end.
    public var writeUnit: Int
    /// Whether the image names a parent.
    public var parent: ParentName?
    /// Room for compressed clusters in the engine: bytes of one cluster, 0 for none.
    public var compressedClusterBytes: Int

    public init(
        name: String,
        byteCount: UInt64,
        unitBytes: UInt64,
        discardGranularity: UInt64,
        writeUnit: Int,
        parent: ParentName?,
        compressedClusterBytes: Int
    ) {
        self.name = name
        self.byteCount = byteCount
        self.unitBytes = unitBytes
        self.discardGranularity = discardGranularity
        self.writeUnit = writeUnit
        self.parent = parent
        self.compressedClusterBytes = compressedClusterBytes
    }
}

/// A parent as its child names it: not to be opened before configuration allows it.
public struct ParentName: Equatable, Sendable {
    /// The names to try, in order, as they are in the image, decoded to UTF-8.
    public var paths: [String]
    /// The format's word; nil if the child names none.
    public var format: String?
    /// The parent's identifier that the child remembers (VHD): 16 bytes.
    public var identifier: [UInt8]?

    public init(paths: [String], format: String?, identifier: [UInt8]? = nil) {
        self.paths = paths
        self.format = format
        self.identifier = identifier
    }
}

/// What a request does to the disk.
public enum ImageChange: UInt8, Sendable {
    /// The range gets the request's own bytes.
    case write
    /// The range reads as zeroes afterwards, all of it.
    case zero
    /// The whole units in the range read as zeroes afterwards and their space is given back; the rest may be left alone.
    case discard
}

/// The answer to a request for a plan.
public enum PlanOutcome: Equatable, Sendable {
    /// The plan covers the first `count` bytes of the range; for upkeep, 0. A plan without steps is done already.
    case planned(count: UInt64)
    /// This page is needed first.
    case metadata(offset: UInt64)
    /// Upkeep must make progress first (no space is claimed).
    case wait
    /// Only for upkeep: there is nothing to do.
    case nothing
    /// It cannot be done.
    case refused(ImageFault)
}

/// How a plan ended.
public enum PlanEnd: Equatable, Sendable {
    case committed
    /// Nothing of the metadata was touched: what was reserved is free again, though it may hold stale bytes.
    case failed
    /// Metadata may or may not be on the disk: what was reserved must not be used again.
    case unclear
}
