// What an image is: size, blocks, and capabilities.

/// Facts about an open image, as they were when it was opened or last measured. Sizes are in bytes.
public struct ImageFacts: Equatable, Sendable {
    /// What holds the image.
    public enum Kind: Sendable {
        case file, blockDevice
    }

    public var kind: Kind
    /// The disk's size, above 0 and a multiple of `logicalBlockSize`.
    public var byteCount: UInt64
    /// The smallest unit of reads and writes: 512 or 4096, more for exotic devices.
    public var logicalBlockSize: Int
    /// The unit that is written without a read first.
    public var physicalBlockSize: Int
    /// Whether discarded ranges are given back to the host.
    public var canDiscard: Bool
    /// Whether the device erases what it discards (BLKSECDISCARD).
    public var canDiscardSecurely: Bool
    /// The unit in which ranges are given back.
    public var discardGranularity: Int
    /// Where the first such unit begins.
    public var discardAlignment: Int

    /// The disk's size in Xen's sectors, which are always of 512 bytes.
    public var sectorCount: UInt64 { byteCount / 512 }
}

/// Whether I/O goes past the page cache.
public enum DirectIO: Equatable, Sendable {
    case used
    /// With the reason, for the log.
    case notUsed(String)
}

/// How an image is opened, and for whom.
public struct ImageOptions: Sendable {
    /// What the disk line's mode says.
    public enum Access: Hashable, Sendable {
        /// `r`: read only, others may read too.
        case readOnly
        /// `w`: read and write, alone.
        case exclusive
        /// `w!`: read and write, and others may write too; the administrator takes responsibility.
        case shared
    }

    public var access: Access
    /// The logical block size to give the disk, at least the device's; nil for the device's own, and 512 for files.
    public var logicalBlockSize: Int?
    /// False to go through the page cache always.
    public var allowsDirectIO: Bool
    /// Which device opens it, `vbd/7/51712`: for others who find it locked, and for its own successor.
    public var owner: String
    /// An identifier of the guest that no other guest has, and that survives a migration: its devices do not exclude
    /// each other.
    public var guest: String
    /// The guest's number, which is in its device model's command line.
    public var domain: UInt16?
    /// Whether QEMU's own locks are taken, so that QEMU and qemu-img refuse the image. Never where the guest's device
    /// model opens it too.
    public var keepsQEMUOut: Bool
    /// Other devices that may have the same image.
    public var neighbours: [DiskNeighbour]
    /// A predecessor served it: it was admitted before, and only its locks are checked.
    public var isTakeover: Bool
    /// The file holds a disk in a format: its own length may be any.
    public var isContainer = false

    /// - Parameter guest: nil for a guest with no device but `owner`.
    public init(
        access: Access,
        owner: String,
        guest: String? = nil,
        domain: UInt16? = nil,
        logicalBlockSize: Int? = nil,
        allowsDirectIO: Bool = true,
        keepsQEMUOut: Bool = false,
        neighbours: [DiskNeighbour] = [],
        isTakeover: Bool = false
    ) {
        self.access = access
        self.owner = owner
        self.guest = guest ?? owner
        self.domain = domain
        self.logicalBlockSize = logicalBlockSize
        self.allowsDirectIO = allowsDirectIO
        self.keepsQEMUOut = keepsQEMUOut
        self.neighbours = neighbours
        self.isTakeover = isTakeover
    }
}
