// What all device classes' counters have: names, a sum, a form for reports.

/// The counters of a queue or a device. They only grow. A frontend can make us count, but not log, without limit.
///
/// Hot code adds to the stored properties directly; only reports go through the names.
public protocol DeviceMetrics: Sendable {
    init()
    /// Names in the order to show them, and where the values are.
    static var names: [(String, any WritableKeyPath<Self, UInt64> & Sendable)] { get }
    /// From taking a request to publishing its response; nil where that is not measured.
    static var latencies: (any WritableKeyPath<Self, LatencyHistogram> & Sendable)? { get }
}

extension DeviceMetrics {
    public static var latencies: (any WritableKeyPath<Self, LatencyHistogram> & Sendable)? { nil }

    /// Adds what another queue, or an earlier life of this one, counted.
    public mutating func merge(_ other: Self) {
        for (_, path) in Self.names { self[keyPath: path] &+= other[keyPath: path] }
        if let path = Self.latencies { self[keyPath: path].merge(other[keyPath: path]) }
    }

    /// - Parameter prefix: before each name, for one queue's own.
    public func counters(prefix: String = "") -> [DeviceReport.Counter] {
        Self.names.map { DeviceReport.Counter(prefix + $0.0, self[keyPath: $0.1]) }
    }
}
