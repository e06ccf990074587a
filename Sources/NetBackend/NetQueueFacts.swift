// What a queue is made with and never changes.

internal import BackendCore
internal import HostNetwork
internal import Hypervisor
internal import XenWire

/// What one queue of one card works with.
struct NetQueueFacts: Sendable {
    let path: DevicePath
    /// 0 … number of queues − 1.
    let index: Int
    let grants: any GrantTable
    let data: DataLoop
    let shared: NetSharedState
    let offloads: PacketOffloads
    let interface: String
    let latch: BreakdownLatch
    let mark: CrashLane

    /// The host did not accept or deliver a packet. An interface that is down or whose queue is full is normal; one
    /// that is gone ends the connection.
    /// - Parameter result: the packet's result in the batch.
    func refused(_ result: Int32) {
        guard PacketBatch.meansGone(result) else { return }
        latch.raise(.host("the interface \(interface) was deleted; the device needs to be attached again"))
    }
}
