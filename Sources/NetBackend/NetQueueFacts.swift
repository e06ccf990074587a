// What a queue is made with and never changes.

internal import BackendCore
internal import HostNetwork
internal import Hypervisor
internal import XenWire

/// The surroundings of one queue of one card.
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

    /// The host did not take or deliver a packet. That its interface is down or its queue full is normal; an interface
    /// that is gone ends the connection.
    /// - Parameter result: what the batch says of the packet.
    func refused(_ result: Int32) {
        guard PacketBatch.meansGone(result) else { return }
        latch.raise(.host("the interface \(interface) was deleted; the device needs to be attached again"))
    }
}
