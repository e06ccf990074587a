// What this backend can do, as it tells every frontend.

/// What this backend offers to every frontend.
public struct BlockCapabilities: Hashable, Sendable {
    /// 1 … 16.
    public let maxQueues: Int
    /// 0 … 4: rings of at most 16 pages.
    public let maxRingPageOrder: Int
    /// Whether data pages may stay mapped between requests.
    public let persistentGrants: Bool
    /// What `sector-size` says of images that are files; nil for 512. Block devices say it themselves.
    public let logicalBlockSize: Int?
    /// Segments of an indirect request: 1 MiB, described by half a page.
    public static let maxIndirectSegments = 256

    /// Values outside their range are brought into it.
    public init(
        maxQueues: Int,
        maxRingPageOrder: Int = 4,
        persistentGrants: Bool = true,
        logicalBlockSize: Int? = nil
    ) {
        self.maxQueues = min(max(maxQueues, 1), 16)
        self.maxRingPageOrder = min(max(maxRingPageOrder, 0), 4)
        self.persistentGrants = persistentGrants
        self.logicalBlockSize = logicalBlockSize
    }
}
