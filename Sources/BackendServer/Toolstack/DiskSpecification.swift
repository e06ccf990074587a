// A disk as libxl describes it in XenStore.

internal import XenWire

/// A disk to be attached.
struct DiskSpecification: DeviceSpecification, Hashable {
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
    var name: String { "disk \(node)" }
    var summary: String { "\(node): \(target)" }
    var hasScript: Bool { true }

    /// libxl_disk.c, `device_disk_add`.
    func backendKeys(_ nodes: DeviceNodes) -> [(String, String)] {
        [
            ("frontend", nodes.frontend),
            ("frontend-id", "\(domain)"),
            ("online", "1"),
            ("removable", flag(isRemovable || isCDROM)),
            ("bootable", "1"),
            ("state", XenbusState.initialising.text),
            ("dev", node),
            ("type", kind == .vbd3 ? "tap" : "phy"),
            ("mode", readOnly || isCDROM ? "r" : isShared ? "w!" : "w"),
            ("device-type", isCDROM ? "cdrom" : "disk"),
            ("direct-io-safe", flag(directIOSafe)),
            ("discard-enable", flag(discard)),
            ("specification", "xen"),
            ("params", kind == .vbd3 ? "aio:\(target)" : target),
            ("script", script),
        ]
    }

    var frontendKeys: [(String, String)] {
        [
            ("virtual-device", "\(index)"),
            ("device-type", isCDROM ? "cdrom" : "disk"),
            ("trusted", flag(trusted)),
        ]
    }

    private func flag(_ value: Bool) -> String { value ? "1" : "0" }
}
