// Bytes of a disk, as a range that cannot overflow.

/// Bytes `start ..< end` of a disk or a file.
public struct DiskRange: Hashable, Sendable {
    public var start: UInt64
    public var count: UInt64

    /// - Precondition: `start + count` does not overflow; ranges that come from outside are checked before.
    @inlinable
    public init(start: UInt64, count: UInt64) {
        precondition(count <= .max &- start)
        self.start = start
        self.count = count
    }

    /// nil if it would not fit into 64 bits.
    @inlinable
    public init?(checking start: UInt64, count: UInt64) {
        guard count <= .max &- start else { return nil }
        self.start = start
        self.count = count
    }

    @inlinable public var end: UInt64 { start &+ count }
    @inlinable public var isEmpty: Bool { count == 0 }
    @inlinable public func overlaps(_ other: DiskRange) -> Bool { start < other.end && other.start < end }
    @inlinable public func contains(_ other: DiskRange) -> Bool { start <= other.start && other.end <= end }

    /// What follows its first `bytes`, which are at most `count`.
    @inlinable public func dropping(_ bytes: UInt64) -> DiskRange {
        DiskRange(start: start &+ bytes, count: count &- bytes)
    }
    @inlinable public func prefix(_ bytes: UInt64) -> DiskRange { DiskRange(start: start, count: min(count, bytes)) }

    /// The range grown to whole units; a unit is a power of two.
    @inlinable
    public func rounded(outTo unit: UInt64) -> DiskRange {
        let first = start & ~(unit &- 1)
        let (sum, overflow) = end.addingReportingOverflow(unit &- 1)
        let last = overflow ? ~(unit &- 1) : sum & ~(unit &- 1)
        return DiskRange(start: first, count: last &- first)
    }
}
