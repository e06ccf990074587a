// What a device class offers to the worker: the interface between BackendServer and every device class.

public import XenWire

/// One device of one frontend domain, served until it is gone. Pinned to the worker's control loop.
public protocol DeviceBackend: Actor {
    nonisolated var path: DevicePath { get }

    /// The device's life: publishes, connects, serves, reconnects. Returns when the device is gone (backend directory
    /// removed, closed with `online` 0 in a driver domain) or after `drain`. Called once.
    func run() async

    /// The hotplug script's request. `.add` answers when the image is open, locked and checked.
    func hotplug(_ event: HotplugEvent) async throws(BackendFailure)

    /// A snapshot taken by the device itself, so that it never races with a disconnect.
    func report() async -> DeviceReport

    /// For a stop or an upgrade: finishes the I/O in flight, publishes, releases everything and leaves XenStore's
    /// `state` at 4, for a successor to re-attach. `run` returns afterwards.
    func drain() async
}

/// A kind of device: says which backend directories are its own and makes a backend for each.
public protocol DeviceClass: Sendable {
    /// The directories below `backend/` this class looks at.
    var kinds: [DeviceKind] { get }
    /// Whether a device with these keys is ours to serve (two backends on one ring corrupt it).
    func owns(_ keys: BackendNodes) -> Bool
    /// Makes the backend; nothing happens before `run`.
    func makeBackend(_ path: DevicePath, _ environment: WorkerEnvironment) -> any DeviceBackend
}
