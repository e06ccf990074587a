// How much a frontend may send: the `rate` key and the account kept of it.

/// The `rate` key: bytes per interval.
public struct TransmitRate: Hashable, Sendable {
    /// At least 1.
    public let bytes: UInt64
    /// At least 1.
    public let microseconds: UInt32

    public init?(bytes: UInt64, microseconds: UInt32) {
        guard bytes > 0, microseconds > 0 else { return nil }
        self.bytes = bytes
        self.microseconds = microseconds
    }

    /// Parses `<bytes>,<microseconds>` as libxl writes it.
    /// - Returns: nil for anything else, and for a rate of nothing.
    public init?(text: some StringProtocol) {
        let parts = text.split(separator: "," as Character, omittingEmptySubsequences: false)
        guard parts.count == 2, let bytes = UInt64(decimal: parts[0]), let microseconds = UInt32(decimal: parts[1])
        else { return nil }
        self.init(bytes: bytes, microseconds: microseconds)
    }
}

/// The account of one queue. Time is nanoseconds of any clock that does not go back.
///
/// Credit comes at the end of each interval, as xl-network-configuration(5) says, and is kept up to a burst that is large
/// enough for the largest packet: with less, a slow interface would never send one (xen-netback, `tx_add_credit`).
/// Beyond xen-netback, the burst is an interval and the largest packet: what was left when a packet had to wait is not lost
/// at the interval's end, which would cost large packets at 2 MB/s more than a quarter of their rate.
public struct CreditBucket: Hashable, Sendable {
    /// Bytes that can be saved, whatever the rate.
    public static let minBurst: UInt64 = 131_072

    public let rate: TransmitRate
    /// Bytes that may be sent now.
    public private(set) var credit: UInt64
    private var windowStart: UInt64

    public init(rate: TransmitRate, now: UInt64) {
        self.rate = rate
        credit = rate.bytes
        windowStart = now
    }

    /// Most that `credit` can be.
    public var burst: UInt64 {
        let (interval, overflow) = rate.bytes.addingReportingOverflow(UInt64(NetWire.maxPacket))
        return max(CreditBucket.minBurst, overflow ? .max : interval)
    }
    private var interval: UInt64 { UInt64(rate.microseconds) * 1000 }

    /// Pays for a packet of `byteCount` bytes.
    /// - Returns: nil if it was paid for; else when to try again, and nothing was taken.
    public mutating func take(_ byteCount: Int, now: UInt64) -> UInt64? {
        refill(now)
        let wanted = UInt64(clamping: byteCount)
        guard wanted > credit else {
            credit -= wanted
            return nil
        }
        // A packet larger than the burst would wait for ever; there is none on the wire.
        let missing = wanted - credit
        let intervals = missing / rate.bytes + (missing % rate.bytes == 0 ? 0 : 1)
        return saturating(windowStart, plus: intervals, times: interval)
    }

    private mutating func refill(_ now: UInt64) {
        guard now > windowStart else { return }
        let intervals = (now - windowStart) / interval
        guard intervals > 0 else { return }
        windowStart += intervals * interval
        credit = min(burst, saturating(credit, plus: intervals, times: rate.bytes))
    }

    private func saturating(_ start: UInt64, plus count: UInt64, times size: UInt64) -> UInt64 {
        let (product, wraps) = count.multipliedReportingOverflow(by: size)
        let (sum, overflow) = start.addingReportingOverflow(product)
        return wraps || overflow ? .max : sum
    }
}
