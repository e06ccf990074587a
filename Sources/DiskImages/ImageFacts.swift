// What an image is: size, blocks, and what can be done with it.

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

/// How an image is opened.
public struct ImageOptions: Sendable {
    /// What the disk line's mode says.
    public enum Access: Sendable {
        /// `r`: read only, others may read too.
        case readOnly
        /// `w`: read and write, alone.
        case exclusive
        /// `w!`: read and write, and whoever asks for it knows what he does: no lock.
        case shared
    }

    public var access: Access
    /// The logical block size to give the disk, at least the device's; nil for the device's own, and 512 for files.
    public var logicalBlockSize: Int?
    /// False to go through the page cache always.
    public var wantsDirectIO: Bool
    /// Who opens it, for others who find it locked: `vbd/7/51712`.
    public var owner: String

    public init(
        access: Access,
        owner: String,
        logicalBlockSize: Int? = nil,
        wantsDirectIO: Bool = true
    ) {
        self.access = access
        self.owner = owner
        self.logicalBlockSize = logicalBlockSize
        self.wantsDirectIO = wantsDirectIO
    }
}
