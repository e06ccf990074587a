// What a queue counts. A frontend can make us count, never log without limit.

internal import BackendCore
internal import XenWire

/// One queue's counters; they only grow.
struct BlockMetrics: Sendable {
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

    /// Names and values in the order to show them.
    var counters: [DeviceReport.Counter] {
        [
            .init("reads", reads), .init("writes", writes), .init("flushes", flushes), .init("barriers", barriers),
            .init("discards", discards), .init("sectors-read", sectorsRead),
            .init("sectors-written", sectorsWritten), .init("sectors-discarded", sectorsDiscarded),
            .init("frontend-faults", faults), .init("host-failures", failures), .init("merged", merged),
            .init("split", split), .init("resubmitted", resubmitted), .init("parked", parked),
            .init("starved", starved), .init("copy-batches", copyBatches), .init("copies", copies),
            .init("persistent-segments", persistentSegments), .init("turns", turns),
            .init("idle-turns", idleTurns), .init("notifications-sent", notificationsSent),
            .init("notifications-saved", notificationsSaved),
        ]
    }

    mutating func merge(_ other: BlockMetrics) {
        reads &+= other.reads
        writes &+= other.writes
        flushes &+= other.flushes
        barriers &+= other.barriers
        discards &+= other.discards
        sectorsRead &+= other.sectorsRead
        sectorsWritten &+= other.sectorsWritten
        sectorsDiscarded &+= other.sectorsDiscarded
        faults &+= other.faults
        failures &+= other.failures
        merged &+= other.merged
        split &+= other.split
        resubmitted &+= other.resubmitted
        parked &+= other.parked
        starved &+= other.starved
        copyBatches &+= other.copyBatches
        copies &+= other.copies
        persistentSegments &+= other.persistentSegments
        turns &+= other.turns
        idleTurns &+= other.idleTurns
        notificationsSent &+= other.notificationsSent
        notificationsSaved &+= other.notificationsSaved
        latency.merge(other.latency)
    }
}
