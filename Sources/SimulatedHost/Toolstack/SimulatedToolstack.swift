// What libxl does to XenStore for a device, for tests and the demo: a model of its contract, not a product.

public import FrontendDrivers
public import Hypervisor
public import XenWire

/// A device as its toolstack sees it: its place, and the nodes written for it.
public protocol SimulatedDevice: Sendable {
    var path: DevicePath { get }
    var backendDomain: DomainID { get }
    /// All keys of the backend's directory, in order.
    var backendKeys: [(String, String)] { get }
    /// All keys of the frontend's directory, in order.
    var frontendKeys: [(String, String)] { get }
}

extension SimulatedDevice {
    /// The backend's directory.
    public var backend: String { path.absolute(in: backendDomain) }
}

/// Attaches and detaches devices as libxl 4.17 does (libxl_device.c, `libxl__device_generic_add`,
/// `libxl__wait_device_connection`, `libxl__initiate_device_generic_remove`), from the toolstack's domain.
public struct SimulatedToolstack: Sendable {
    public enum HotplugStep: String, Sendable { case add, remove }

    /// Called instead of running the script. An error fails the attach.
    public typealias Hotplug = @Sendable (DevicePath, HotplugStep) async throws -> Void

    public let store: any XenStore
    private let hotplug: Hotplug?

    /// - Parameters:
    ///   - hypervisor: as seen from the toolstack's domain, which must be privileged.
    ///   - hotplug: run after state 2 and after state 6; nil for kinds and domains without a script.
    public init(_ hypervisor: any Hypervisor, hotplug: Hotplug? = nil) {
        store = hypervisor.store
        self.hotplug = hotplug
    }

    // MARK: attaching

    /// Writes both directories in one transaction, waits until the backend is at exactly 2, runs the hotplug step.
    /// - Throws: `timedOut` after 10 s without a 2, or what the hotplug step throws.
    public func attach(_ device: some SimulatedDevice) async throws {
        try await create(device)
        _ = try await bus(device).wait(for: [.initWait], of: device.backend)
        try await hotplug?(device.path, .add)
    }

    /// Writes the nodes only: for tests that check themselves what happens next.
    public func create(_ device: some SimulatedDevice) async throws(FrontendFailure) {
        let (backend, frontend) = (device.backend, device.path.frontend)
        let (keys, frontendKeys) = (device.backendKeys, device.frontendKeys)
        try await storing { () async throws(HypervisorFailure) in
            try await store.transaction { (store) throws(HypervisorFailure) in
                try store.remove(backend)
                try store.remove(frontend)
                try store.write(frontend, "")
                try store.setPermissions(
                    frontend,
                    [XenStorePermission(device.path.domain, .none), XenStorePermission(device.backendDomain, .read)]
                )
                try store.write(backend, "")
                try store.setPermissions(
                    backend,
                    [XenStorePermission(device.backendDomain, .none), XenStorePermission(device.path.domain, .read)]
                )
                for (key, value) in keys { try store.write("\(backend)/\(key)", value) }
                for (key, value) in frontendKeys { try store.write("\(frontend)/\(key)", value) }
            }
        }
    }

    // MARK: detaching

    /// Writes `online` 0 and state 5 together, waits 10 s for 6, runs the hotplug step, removes both directories. A
    /// driver domain has to remove its own directory: then it is waited for.
    /// - Throws: `timedOut` if the backend does not close; then nothing is removed.
    public func detach(_ device: some SimulatedDevice) async throws {
        let backend = device.backend
        let isThere = try await storing { () async throws(HypervisorFailure) in
            try await store.transaction { (store) throws(HypervisorFailure) in
                guard let state = try store.read("\(backend)/\(BusKeys.state)") else { return false }
                try store.write("\(backend)/\(BusKeys.online)", "0")
                if state != XenbusState.closed.text {
                    try store.write("\(backend)/\(BusKeys.state)", XenbusState.closing.text)
                }
                return true
            }
        }
        if isThere {
            do throws(FrontendFailure) {
                _ = try await bus(device).wait(for: [.closed], of: backend)
            } catch .timedOut(_, saw: nil) {
                // A driver domain has removed its directory already.
            }
            try? await hotplug?(device.path, .remove)
        }
        try await remove(device)
    }

    /// Removes both directories at once, as after a forced destruction.
    public func remove(_ device: some SimulatedDevice) async throws(FrontendFailure) {
        let (backend, frontend) = (device.backend, device.path.frontend)
        try await storing { () async throws(HypervisorFailure) in
            try await store.transaction { (store) throws(HypervisorFailure) in
                try store.remove(frontend)
                try store.remove(backend)
            }
        }
    }

    /// The backend's directory.
    public func backend(_ device: some SimulatedDevice) -> String { device.backend }

    /// One key of the backend.
    public func backendKey(_ key: String, of device: some SimulatedDevice) async throws(FrontendFailure) -> String? {
        let path = "\(device.backend)/\(key)"
        return try await storing { () async throws(HypervisorFailure) in try await store.read(path) }
    }

    private func bus(_ device: some SimulatedDevice) -> FrontendBus {
        FrontendBus(store: store, path: device.path.frontend)
    }
}
