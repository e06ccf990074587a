// What libxl does to XenStore for a disk, for tests and the demo: an oracle of its contract, not a product.

public import Hypervisor
public import XenWire

/// Attaches and detaches disks as libxl 4.17 does (libxl_device.c, `libxl__device_generic_add`,
/// `libxl__wait_device_connection`, `libxl__initiate_device_generic_remove`), from the toolstack's domain.
public struct SimulatedToolstack: Sendable {
    /// A disk to attach.
    public struct Disk: Sendable {
        public var path: DevicePath
        public var backendDomain = DomainID.initial
        /// The guest's name for it.
        public var device = "xvda"
        public var params: String
        public var isReadOnly = false
        public var isCDROM = false
        public var isRemovable = false
        public var script: String?
        /// The protocol libxl writes for a PV guest; nil as for HVM and PVH guests.
        public var guestProtocol: String?
        /// Written last, so they replace the usual ones.
        public var extraBackendKeys: [(String, String)] = []
        public var extraFrontendKeys: [(String, String)] = []

        public init(_ path: DevicePath, params: String) {
            self.path = path
            self.params = params
        }
    }

    public enum HotplugStep: String, Sendable { case add, remove }

    /// What stands for running the script. An error fails the attach.
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
    public func attach(_ disk: Disk) async throws {
        try await create(disk)
        _ = try await bus(disk).wait(for: [.initWait], of: backend(disk))
        try await hotplug?(disk.path, .add)
    }

    /// Only the nodes: for tests that look at what happens next themselves.
    public func create(_ disk: Disk) async throws(FrontendFailure) {
        let (backend, frontend) = (backend(disk), disk.path.frontend)
        let keys = backendKeys(disk)
        let frontendKeys = frontendKeys(disk)
        try await storing { () async throws(HypervisorFailure) in
            try await store.transaction { (store) throws(HypervisorFailure) in
                try store.remove(backend)
                try store.remove(frontend)
                try store.write(frontend, "")
                try store.setPermissions(
                    frontend,
                    [XenStorePermission(disk.path.domain, .none), XenStorePermission(disk.backendDomain, .read)]
                )
                try store.write(backend, "")
                try store.setPermissions(
                    backend,
                    [XenStorePermission(disk.backendDomain, .none), XenStorePermission(disk.path.domain, .read)]
                )
                for (key, value) in keys { try store.write("\(backend)/\(key)", value) }
                for (key, value) in frontendKeys { try store.write("\(frontend)/\(key)", value) }
            }
        }
    }

    private func backendKeys(_ disk: Disk) -> [(String, String)] {
        var keys = [
            (BusKeys.frontend, disk.path.frontend),
            (BusKeys.frontendID, "\(disk.path.domain)"),
            (BusKeys.online, "1"),
            (BlockKeys.removable, disk.isRemovable || disk.isCDROM ? "1" : "0"),
            ("bootable", "1"),
            (BusKeys.state, XenbusState.initialising.text),
            (BlockKeys.device, disk.device),
            (BlockKeys.type, disk.path.kind == .vbd3 ? "tap" : disk.path.kind == .qdisk ? "qdisk" : "phy"),
            (BlockKeys.mode, disk.isReadOnly || disk.isCDROM ? "r" : "w"),
            (BlockKeys.deviceType, disk.isCDROM ? "cdrom" : "disk"),
            (BlockKeys.directIOSafe, "0"),
            (BlockKeys.discardEnable, disk.isReadOnly ? "0" : "1"),
            ("specification", "xen"),
            (BlockKeys.params, disk.params),
        ]
        if let script = disk.script { keys.append((BusKeys.script, script)) }
        return keys + disk.extraBackendKeys
    }

    private func frontendKeys(_ disk: Disk) -> [(String, String)] {
        var keys = [
            (BusKeys.backend, backend(disk)),
            (BusKeys.backendID, "\(disk.backendDomain)"),
            (BusKeys.state, XenbusState.initialising.text),
            (BlockKeys.virtualDevice, "\(disk.path.index)"),
            (BlockKeys.deviceType, disk.isCDROM ? "cdrom" : "disk"),
            (BlockKeys.trusted, "1"),
        ]
        if let guestProtocol = disk.guestProtocol { keys.append((BlockKeys.protocol, guestProtocol)) }
        return keys + disk.extraFrontendKeys
    }

    // MARK: detaching

    /// Writes `online` 0 and state 5 together, waits 10 s for 6, runs the hotplug step, removes both directories. A
    /// driver domain has to remove its own directory: then it is waited for.
    /// - Throws: `timedOut` if the backend does not close; then nothing is removed.
    public func detach(_ disk: Disk) async throws {
        let backend = backend(disk)
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
                _ = try await bus(disk).wait(for: [.closed], of: backend)
            } catch .timedOut(_, saw: nil) {
                // A driver domain has removed its directory already.
            }
            try? await hotplug?(disk.path, .remove)
        }
        try await remove(disk)
    }

    /// Removes both directories at once, as after a forced destruction.
    public func remove(_ disk: Disk) async throws(FrontendFailure) {
        let (backend, frontend) = (backend(disk), disk.path.frontend)
        try await storing { () async throws(HypervisorFailure) in
            try await store.transaction { (store) throws(HypervisorFailure) in
                try store.remove(frontend)
                try store.remove(backend)
            }
        }
    }

    /// The backend's directory.
    public func backend(_ disk: Disk) -> String { disk.path.absolute(in: disk.backendDomain) }

    /// One key of the backend.
    public func backendKey(_ key: String, of disk: Disk) async throws(FrontendFailure) -> String? {
        let path = "\(backend(disk))/\(key)"
        return try await storing { () async throws(HypervisorFailure) in try await store.read(path) }
    }

    private func bus(_ disk: Disk) -> FrontendBus { FrontendBus(store: store, path: disk.path.frontend) }
}
