// What the toolstack specified for a disk: the backend directory's keys, read once and turned into a value.

internal import BackendCore
internal import XenWire

/// The toolstack's half of a disk's keys (xl-disk-configuration(5), libxl_disk.c).
struct BlockDeviceKeys: Hashable, Sendable {
    /// Absolute path of the frontend's directory.
    var frontend: String
    /// The image; nil for an empty drive.
    var target: DiskTarget?
    /// Why the target is invalid.
    var targetFault: DiskTargetFault?
    var isReadOnly: Bool
    /// `mode` is `w!`: several writers, which the administrator takes responsibility for.
    var mayBeShared: Bool
    var isCDROM: Bool
    var isRemovable: Bool
    var allowsDiscard: Bool
    /// The toolstack runs a hotplug script for it.
    var hasScript: Bool

    init(_ keys: BackendNodes) {
        frontend = keys[BusKeys.frontend] ?? keys.path.frontend
        do throws(DiskTargetFault) {
            target = try DiskTarget(parsing: keys[BlockKeys.params] ?? "")
        } catch {
            targetFault = error
        }
        isReadOnly = !(keys[BlockKeys.mode] ?? "r").hasPrefix("w")
        mayBeShared = keys[BlockKeys.mode]?.hasSuffix("!") ?? false
        isCDROM = keys[BlockKeys.deviceType] == "cdrom"
        isRemovable = keys[BlockKeys.removable] == "1"
        allowsDiscard = keys[BlockKeys.discardEnable].map { $0 != "0" } ?? true
        hasScript = keys[BusKeys.script] != nil
    }

    /// The bits of `info`.
    var flags: BlockDeviceFlags {
        var flags: BlockDeviceFlags = []
        if isCDROM { flags.insert(.cdrom) }
        if isRemovable { flags.insert(.removable) }
        if isReadOnly || isCDROM { flags.insert(.readOnly) }
        return flags
    }
}
