// What a controller's queue is made with and never changes.

internal import BackendCore
internal import HostUSB
internal import Hypervisor
internal import XenWire

/// What one controller works with.
struct USBQueueFacts: Sendable {
    let path: DevicePath
    let shape: USBControllerShape
    let host: any USBHost
    let grants: any GrantTable
    let data: DataLoop
    let mark: DeviceCrashMark?

    /// How others are told who has a device.
    func owner(_ port: USBPort) -> String { "\(path.relative) port \(port)" }
}
