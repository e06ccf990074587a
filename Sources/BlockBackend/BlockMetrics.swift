// What a queue counts. A frontend can make us count, but not log, without limit.

internal import BackendCore
internal import XenWire

/// One queue's counters; they only grow.
struct BlockMetrics: DeviceMetrics {
    var reads: UInt64 = 0
    var writes: UInt64 = 0
    var flushes: UInt64 = 0
    var barriers: UInt64 = 0
    var discards: UInt64 = 0
    var sectorsRead: UInt64 = 0
    var sectorsWritten: UInt64 = 0
    var sectorsDiscarded: UInt64 = 0
    /// Requests answered with an error that the frontend caused.
    var faults: UInt64 = 0
    /// Requests answered with an error that the host caused.
    var failures: UInt64 = 0
    /// Requests that went to the disk as part of another's transfer.
    var merged: UInt64 = 0
    /// Transfers submitted beyond one per request.
    var split: UInt64 = 0
    /// Transfers submitted again because they ended early.
    var resubmitted: UInt64 = 0
    /// Requests that waited for an overlapping one, a flush or a barrier.
    var parked: UInt64 = 0
    /// Requests that waited for buffers.
    var starved: UInt64 = 0
    var copyBatches: UInt64 = 0
    var copies: UInt64 = 0
    /// Segments moved through persistently mapped grants.
    var persistentSegments: UInt64 = 0
    var turns: UInt64 = 0
    var idleTurns: UInt64 = 0
    var notificationsSent: UInt64 = 0
    var notificationsSaved: UInt64 = 0
    var latency = LatencyHistogram()

    mutating func count(_ request: BlockRequest) {
        switch request.kind {
        case .read:
            reads &+= 1
            sectorsRead &+= request.sectorCount
        case .write:
            writes &+= 1
            sectorsWritten &+= request.sectorCount
        case .flush:
            flushes &+= 1
            sectorsWritten &+= request.sectorCount
        case .writeBarrier:
            barriers &+= 1
            sectorsWritten &+= request.sectorCount
        case .discard, .secureDiscard:
            discards &+= 1
            sectorsDiscarded &+= request.sectorCount
        }
    }

    static let names: [(String, any WritableKeyPath<BlockMetrics, UInt64> & Sendable)] = [
        ("reads", \.reads), ("writes", \.writes), ("flushes", \.flushes), ("barriers", \.barriers),
        ("discards", \.discards), ("sectors-read", \.sectorsRead), ("sectors-written", \.sectorsWritten),
        ("sectors-discarded", \.sectorsDiscarded), ("frontend-faults", \.faults), ("host-failures", \.failures),
        ("merged", \.merged), ("split", \.split), ("resubmitted", \.resubmitted), ("parked", \.parked),
        ("starved", \.starved), ("copy-batches", \.copyBatches), ("copies", \.copies),
        ("persistent-segments", \.persistentSegments), ("turns", \.turns), ("idle-turns", \.idleTurns),
        ("notifications-sent", \.notificationsSent), ("notifications-saved", \.notificationsSaved),
    ]

    static let latencies: (any WritableKeyPath<BlockMetrics, LatencyHistogram> & Sendable)? = \BlockMetrics.latency
}
