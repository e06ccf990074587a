// How long requests took: a histogram with a bucket for each power of two of microseconds.

/// Counts by duration. Bucket 0 is below 1 µs, bucket n is 2ⁿ⁻¹ … 2ⁿ−1 µs, the last takes all that is longer.
public struct LatencyHistogram: Hashable, Sendable {
    /// 2²² µs is four seconds; anything longer shares the last bucket.
    public static let bucketCount = 24
    /// `bucketCount` counts.
    public private(set) var buckets: [UInt64]
    public private(set) var count: UInt64 = 0
    /// Sum of all durations in nanoseconds, for the mean.
    public private(set) var totalNanoseconds: UInt64 = 0

    public init() { buckets = Array(repeating: 0, count: LatencyHistogram.bucketCount) }

    /// The bucket that a duration falls into.
    @inlinable
    public static func bucket(nanoseconds: UInt64) -> Int {
        let microseconds = nanoseconds / 1000
        return min(UInt64.bitWidth &- microseconds.leadingZeroBitCount, bucketCount &- 1)
    }

    /// Counts one duration.
    public mutating func add(nanoseconds: UInt64) {
        buckets[LatencyHistogram.bucket(nanoseconds: nanoseconds)] &+= 1
        count &+= 1
        totalNanoseconds &+= nanoseconds
    }

    /// Adds another histogram's counts, e.g. those of another queue.
    public mutating func merge(_ other: LatencyHistogram) {
        for index in buckets.indices { buckets[index] &+= other.buckets[index] }
        count &+= other.count
        totalNanoseconds &+= other.totalNanoseconds
    }

    /// An upper bound in microseconds of the given share (0 … 1) of all durations; 0 when empty.
    public func percentile(_ share: Double) -> UInt64 {
        guard count > 0, share > 0 else { return 0 }
        let wanted = UInt64((Double(count) * min(share, 1)).rounded(.up))
        var seen: UInt64 = 0
        for (index, bucket) in buckets.enumerated() {
            seen &+= bucket
            if seen >= wanted { return 1 << UInt64(index) }
        }
        return 1 << UInt64(LatencyHistogram.bucketCount - 1)
    }
}
