// What a queue of a disk is made with.

internal import BackendCore
internal import Hypervisor
internal import XenWire

/// What a queue is made with and never changes.
struct BlockQueueFacts: Sendable {
    let path: DevicePath
    /// 0 … number of queues − 1.
    let index: Int
    let abi: BlockABI
    let usesPersistentGrants: Bool
    let grants: any GrantTable
    let data: DataLoop
    let mark: CrashLane
}
