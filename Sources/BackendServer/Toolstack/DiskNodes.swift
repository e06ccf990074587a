// The XenStore nodes of a disk, written and removed as libxl does it, so that xl and we see the same disks.

internal import Hypervisor
internal import XenWire

/// A disk to be attached, as the toolstack would describe it.
struct DiskSpecification: Hashable, Sendable {
    var domain: DomainID
    /// The backend's directory is of this kind: `vbd`, or `vbd3` for xl's `backendtype=tap`.
    var kind: DeviceKind
    /// The number in XenStore: 51712 for xvda.
    var index: UInt32
    /// The name in the guest: xvda.
    var node: String
    var target: String
    var readOnly = false
    /// xl's `w!`: others may write the image at the same time.
    var isShared = false
    var isCDROM = false
    var isRemovable = false
    var directIOSafe = false
    var discard = true
    /// Whether the guest's driver trusts the backend (blkif.h, `trusted`; XSA-403).
    var trusted = true
    /// The hotplug script's path.
    var script: String

    var path: DevicePath { DevicePath(kind: kind, domain: domain, index: index) }
}

/// Where a disk's nodes are (field names as in libxl_device.c, `libxl__device_generic_add`).
struct DiskNodes: Sendable {
    /// We, the backend's domain.
    let own: DomainID
    let path: DevicePath

    /// Absolute: what the frontend's `backend` node says.
    var backend: String { "/local/domain/\(own)/\(path)" }
    /// The frontend's kind is `vbd` whatever the backend's is.
    var frontend: String { "/local/domain/\(path.domain)/device/vbd/\(path.index)" }
    /// The copy that libxl trusts (XSA-175).
    var toolstack: String { "/libxl/\(path.domain)/device/vbd/\(path.index)" }

    /// Writes all three directories; to be run in a transaction.
    /// - Returns: false if the guest has a disk with this number.
    func write(_ disk: DiskSpecification, to store: any XenStoreOperations) throws(HypervisorFailure) -> Bool {
        if try store.read("\(frontend)/backend") != nil { return false }
        try store.remove(frontend)
        try store.remove(backend)
        try store.remove(toolstack)
        let keys = backendKeys(disk)
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
        for (name, value) in frontendKeys(disk) { try store.write("\(frontend)/\(name)", value) }
        try store.write("\(toolstack)/frontend", frontend)
        try store.write("\(toolstack)/backend", backend)
        for (name, value) in keys where name != "frontend" { try store.write("\(toolstack)/\(name)", value) }
        return true
    }

    /// Asks the backend to close (libxl_device.c, `libxl__initiate_device_generic_remove`); in a transaction.
    /// - Parameter force: take the frontend's nodes away first, as libxl does for a domain that is to be destroyed:
    ///   the backend sees that nobody is left to close with.
    /// - Returns: false if there is no such backend any more.
    func requestClose(_ store: any XenStoreOperations, force: Bool = false) throws(HypervisorFailure) -> Bool {
        if force { try store.remove(frontend) }
        guard let state = try store.read("\(backend)/state") else { return false }
        try store.write("\(backend)/online", "0")
        if state != XenbusState.closed.text { try store.write("\(backend)/state", XenbusState.closing.text) }
        return true
    }

    /// Removes all three directories.
    func remove(from store: any XenStoreOperations) throws(HypervisorFailure) {
        try store.remove(frontend)
        try store.remove(toolstack)
        try store.remove(backend)
    }

    /// libxl_disk.c, `device_disk_add`.
    private func backendKeys(_ disk: DiskSpecification) -> [(String, String)] {
        [
            ("frontend", frontend),
            ("frontend-id", "\(path.domain)"),
            ("online", "1"),
            ("removable", flag(disk.isRemovable || disk.isCDROM)),
            ("bootable", "1"),
            ("state", XenbusState.initialising.text),
            ("dev", disk.node),
            ("type", disk.kind == .vbd3 ? "tap" : "phy"),
            ("mode", disk.readOnly || disk.isCDROM ? "r" : disk.isShared ? "w!" : "w"),
            ("device-type", disk.isCDROM ? "cdrom" : "disk"),
            ("direct-io-safe", flag(disk.directIOSafe)),
            ("discard-enable", flag(disk.discard)),
            ("specification", "xen"),
            ("params", disk.kind == .vbd3 ? "aio:\(disk.target)" : disk.target),
            ("script", disk.script),
        ]
    }

    private func frontendKeys(_ disk: DiskSpecification) -> [(String, String)] {
        [
            ("backend", backend),
            ("backend-id", "\(own)"),
            ("state", XenbusState.initialising.text),
            ("virtual-device", "\(path.index)"),
            ("device-type", disk.isCDROM ? "cdrom" : "disk"),
            ("trusted", flag(disk.trusted)),
        ]
    }

    private func flag(_ value: Bool) -> String { value ? "1" : "0" }
}
