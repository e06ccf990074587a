// What a queue counts. A frontend can make us count, but not log, without limit.

internal import BackendCore
internal import XenWire

/// One queue's counters; they only grow. Transmit and receive as the frontend sees them.
struct NetMetrics: DeviceMetrics {
    var transmitPackets: UInt64 = 0
    var transmitBytes: UInt64 = 0
    var transmitSegmented: UInt64 = 0
    /// Malformed packets of the frontend (answered with an error).
    var transmitFaults: UInt64 = 0
    /// Packets that the host did not take.
    var transmitRefused: UInt64 = 0
    /// Times a packet waited for the rate limit.
    var transmitThrottled: UInt64 = 0
    /// Times the host had no room for further packets.
    var transmitBlocked: UInt64 = 0
    var receivePackets: UInt64 = 0
    var receiveBytes: UInt64 = 0
    var receiveSegmented: UInt64 = 0
    /// Packets for a frontend that had posted no buffers for too long.
    var receiveStalled: UInt64 = 0
    /// Packets in a form that the frontend does not take.
    var receiveUnfit: UInt64 = 0
    /// Multicast packets that nobody asked for.
    var receiveFiltered: UInt64 = 0
    /// Packets into buffers that could not be written.
    var receiveFaults: UInt64 = 0
    /// Packets handed to another queue by the frontend's hash.
    var receiveSteered: UInt64 = 0
    /// Times that the queue waited for the frontend's buffers.
    var receiveWaits: UInt64 = 0
    var copies: UInt64 = 0
    var copyBatches: UInt64 = 0
    var transmitTurns: UInt64 = 0
    var receiveTurns: UInt64 = 0
    var idleTurns: UInt64 = 0
    var notificationsSent: UInt64 = 0
    var notificationsSaved: UInt64 = 0

    var transmitDropped: UInt64 { transmitFaults &+ transmitRefused }
    var receiveDropped: UInt64 { receiveStalled &+ receiveUnfit &+ receiveFaults }

    mutating func count(copies count: Int) {
        copyBatches &+= 1
        copies &+= UInt64(truncatingIfNeeded: count)
    }

    mutating func notified(_ sent: Bool) {
        if sent { notificationsSent &+= 1 } else { notificationsSaved &+= 1 }
    }

    static let names: [(String, any WritableKeyPath<NetMetrics, UInt64> & Sendable)] = [
        ("tx-packets", \.transmitPackets), ("tx-bytes", \.transmitBytes), ("tx-gso", \.transmitSegmented),
        ("tx-frontend-faults", \.transmitFaults), ("tx-host-refused", \.transmitRefused),
        ("tx-throttled", \.transmitThrottled), ("tx-waits-for-host", \.transmitBlocked),
        ("rx-packets", \.receivePackets), ("rx-bytes", \.receiveBytes),
        ("rx-gso", \.receiveSegmented), ("rx-dropped-stalled", \.receiveStalled),
        ("rx-dropped-unfit", \.receiveUnfit), ("rx-filtered", \.receiveFiltered),
        ("rx-frontend-faults", \.receiveFaults), ("rx-steered", \.receiveSteered),
        ("rx-waits-for-buffers", \.receiveWaits), ("copies", \.copies), ("copy-batches", \.copyBatches),
        ("tx-turns", \.transmitTurns), ("rx-turns", \.receiveTurns), ("idle-turns", \.idleTurns),
        ("notifications-sent", \.notificationsSent), ("notifications-saved", \.notificationsSaved),
    ]
}
