// What a controller counts. A frontend can make us count, but not log, without limit.

internal import BackendCore
internal import XenWire

/// One controller's counters; they only grow.
struct USBMetrics: DeviceMetrics {
    var control: UInt64 = 0
    var bulk: UInt64 = 0
    var interrupt: UInt64 = 0
    var isochronous: UInt64 = 0
    var bytesIn: UInt64 = 0
    var bytesOut: UInt64 = 0
    var packets: UInt64 = 0
    var packetErrors: UInt64 = 0
    /// Control requests done through the host's stack or answered here.
    var intercepted: UInt64 = 0
    /// Resets of the host's device that the frontend's resets led to.
    var resets: UInt64 = 0
    /// Resets by the frontend that came too fast to be carried out.
    var resetsSkipped: UInt64 = 0
    var unlinks: UInt64 = 0
    /// Unlinks of URBs that were in flight.
    var unlinked: UInt64 = 0
    /// URBs that waited for another one of their endpoint, or for their device to come back.
    var parked: UInt64 = 0
    /// URBs that went to the host as a part of another's transfer.
    var joined: UInt64 = 0
    // Errors by cause.
    /// Malformed URBs.
    var faults: UInt64 = 0
    /// URBs to empty ports, unknown addresses or missing endpoints.
    var misdirected: UInt64 = 0
    var stalls: UInt64 = 0
    var overflows: UInt64 = 0
    var transactionErrors: UInt64 = 0
    /// URBs whose device went away, or whose backend did.
    var lost: UInt64 = 0
    /// URBs that the host refused.
    var refused: UInt64 = 0
    var connects: UInt64 = 0
    var disconnects: UInt64 = 0
    var copies: UInt64 = 0
    var copyBatches: UInt64 = 0
    var turns: UInt64 = 0
    var idleTurns: UInt64 = 0
    var notificationsSent: UInt64 = 0
    var notificationsSaved: UInt64 = 0
    var latency = LatencyHistogram()

    mutating func notified(_ sent: Bool) {
        if sent { notificationsSent &+= 1 } else { notificationsSaved &+= 1 }
    }

    mutating func count(_ kind: URBRequest.Kind) {
        switch kind {
        case .control: control &+= 1
        case .bulk: bulk &+= 1
        case .interrupt: interrupt &+= 1
        case .isochronous(_, _, let count):
            isochronous &+= 1
            packets &+= UInt64(truncatingIfNeeded: count)
        case .unlink: unlinks &+= 1
        }
    }

    static let names: [(String, any WritableKeyPath<USBMetrics, UInt64> & Sendable)] = [
        ("control", \.control), ("bulk", \.bulk), ("interrupt", \.interrupt), ("isochronous", \.isochronous),
        ("bytes-in", \.bytesIn), ("bytes-out", \.bytesOut), ("iso-packets", \.packets),
        ("iso-packet-errors", \.packetErrors), ("intercepted", \.intercepted), ("resets", \.resets),
        ("resets-skipped", \.resetsSkipped), ("unlinks", \.unlinks), ("unlinked", \.unlinked), ("parked", \.parked),
        ("joined", \.joined),
        ("frontend-faults", \.faults), ("misdirected", \.misdirected), ("stalls", \.stalls),
        ("overflows", \.overflows), ("transaction-errors", \.transactionErrors), ("lost", \.lost),
        ("host-refused", \.refused), ("connects", \.connects), ("disconnects", \.disconnects), ("copies", \.copies),
        ("copy-batches", \.copyBatches), ("turns", \.turns), ("idle-turns", \.idleTurns),
        ("notifications-sent", \.notificationsSent), ("notifications-saved", \.notificationsSaved),
    ]

    static let latencies: (any WritableKeyPath<USBMetrics, LatencyHistogram> & Sendable)? = \USBMetrics.latency
}
