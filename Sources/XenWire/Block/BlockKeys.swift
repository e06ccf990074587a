// Names of the XenStore keys of block devices (public/io/blkif.h), and the bits of `info`.

/// Keys of the backend's and the frontend's half.
public enum BlockKeys {
    // Backend, written by the toolstack.
    public static let mode = "mode"
    public static let params = "params"
    public static let type = "type"
    public static let deviceType = "device-type"
    public static let removable = "removable"
    public static let device = "dev"
    public static let directIOSafe = "direct-io-safe"
    public static let discardEnable = "discard-enable"
    // Backend, written by the hotplug script or by us.
    public static let physicalDevice = "physical-device"
    public static let physicalDevicePath = "physical-device-path"
    // Backend: features and transport, before state 2.
    public static let featureBarrier = "feature-barrier"
    public static let featureFlushCache = "feature-flush-cache"
    public static let featureDiscard = "feature-discard"
    /// Both halves.
    public static let featurePersistent = "feature-persistent"
    public static let featureMaxIndirectSegments = "feature-max-indirect-segments"
    public static let maxRingPageOrder = "max-ring-page-order"
    // Backend: properties, before state 4.
    /// Always in units of 512 bytes, whatever `sector-size` says (blkif.h of Xen 4.20, note 12).
    public static let sectors = "sectors"
    public static let sectorSize = "sector-size"
    public static let physicalSectorSize = "physical-sector-size"
    public static let info = "info"
    public static let discardGranularity = "discard-granularity"
    public static let discardAlignment = "discard-alignment"
    public static let discardSecure = "discard-secure"
    // Frontend.
    public static let ringReference = "ring-ref"
    public static let ringPageOrder = "ring-page-order"
    public static let `protocol` = "protocol"
    public static let virtualDevice = "virtual-device"
    public static let trusted = "trusted"

    /// Frontend: the grant of page `page` of a ring of several pages.
    public static func ringReference(_ page: Int) -> String { "ring-ref\(page)" }
}

/// The bits of the backend's `info` key (blkif.h, `VDISK_*`).
public struct BlockDeviceFlags: OptionSet, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }
    /// `VDISK_CDROM`.
    public static let cdrom = BlockDeviceFlags(rawValue: 1)
    /// `VDISK_REMOVABLE`.
    public static let removable = BlockDeviceFlags(rawValue: 2)
    /// `VDISK_READONLY`.
    public static let readOnly = BlockDeviceFlags(rawValue: 4)
}
