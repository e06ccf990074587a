// The XenStore nodes of a device, written and removed as by libxl, so that xl and xenback see the same devices.

internal import Hypervisor
internal import XenWire

/// A device to be attached, as the toolstack would describe it.
protocol DeviceSpecification: Sendable {
    var path: DevicePath { get }
    /// Its name for the administrator: `disk xvda`, `USB controller 0`.
    var name: String { get }
    /// A description for the log.
    var summary: String { get }
    /// libxl runs a script for devices of this kind.
    var hasScript: Bool { get }
    /// All keys of the backend's directory, in libxl's order.
    func backendKeys(_ nodes: DeviceNodes) -> [(String, String)]
    /// The frontend's keys, except those that all devices have.
    var frontendKeys: [(String, String)] { get }
}

/// Where a device's nodes are (field names as in libxl_device.c, `libxl__device_generic_add`).
struct DeviceNodes: Sendable {
    /// We, the backend's domain.
    let own: DomainID
    let path: DevicePath

    /// Absolute: what the frontend's `backend` node says.
    var backend: String { path.absolute(in: own) }
    /// The frontend's kind is `vbd` for all disks, `vusb` for all USB controllers.
    var frontend: String { path.frontend }
    /// The copy that libxl trusts (XSA-175).
    var toolstack: String { "/libxl/\(path.domain)/device/\(path.kind.frontendKind)/\(path.index)" }

    /// Writes all three directories; to be run in a transaction.
    /// - Returns: false if the guest has a device with this number.
    func write(
        _ device: some DeviceSpecification,
        to store: any XenStoreOperations
    ) throws(HypervisorFailure) -> Bool {
        if try store.read("\(frontend)/\(BusKeys.backend)") != nil { return false }
        try store.remove(frontend)
        try store.remove(backend)
        try store.remove(toolstack)
        let keys = device.backendKeys(self)
        try store.write(frontend, "")
        try store.setPermissions(
            frontend,
            [XenStorePermission(path.domain, .none), XenStorePermission(own, .read)]
        )
        try store.write(backend, "")
        try store.setPermissions(
            backend,
            [XenStorePermission(own, .none), XenStorePermission(path.domain, .read)]
        )
        for (name, value) in keys { try store.write("\(backend)/\(name)", value) }
        for (name, value) in commonFrontendNodes + device.frontendKeys { try store.write("\(frontend)/\(name)", value) }
        try store.write("\(toolstack)/\(BusKeys.frontend)", frontend)
        try store.write("\(toolstack)/\(BusKeys.backend)", backend)
        for (name, value) in keys where name != BusKeys.frontend { try store.write("\(toolstack)/\(name)", value) }
        return true
    }

    private var commonFrontendNodes: [(String, String)] {
        [
            (BusKeys.backend, backend),
            (BusKeys.backendID, "\(own)"),
            (BusKeys.state, XenbusState.initialising.text),
        ]
    }

    /// Asks the backend to close (libxl_device.c, `libxl__initiate_device_generic_remove`); in a transaction.
    /// - Parameter force: remove the frontend's nodes first, as libxl does for a domain that is to be destroyed: the
    ///   backend sees that there is no frontend to wait for.
    /// - Returns: false if there is no such backend any more.
    func requestClose(_ store: any XenStoreOperations, force: Bool = false) throws(HypervisorFailure) -> Bool {
        if force { try store.remove(frontend) }
        guard let state = try store.read("\(backend)/\(BusKeys.state)") else { return false }
        try store.write("\(backend)/\(BusKeys.online)", "0")
        if state != XenbusState.closed.text { try store.write("\(backend)/\(BusKeys.state)", XenbusState.closing.text) }
        return true
    }

    /// Removes all three directories.
    func remove(from store: any XenStoreOperations) throws(HypervisorFailure) {
        try store.remove(frontend)
        try store.remove(toolstack)
        try store.remove(backend)
    }
}
