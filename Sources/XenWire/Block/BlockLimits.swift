// What a device can do and how big it is: what requests are validated against.

/// The negotiated, present facts of one disk. Changes with a resize or a media change; a request is validated against
/// the value in force when it was taken.
public struct BlockLimits: Hashable, Sendable {
    /// Operations beyond read and write that the backend offered.
    public struct Features: OptionSet, Hashable, Sendable {
        public let rawValue: UInt8
        @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }
        /// `feature-flush-cache`.
        @inlinable public static var flush: Features { Features(rawValue: 1) }
        /// `feature-barrier`.
        @inlinable public static var barrier: Features { Features(rawValue: 2) }
        /// `feature-discard`.
        @inlinable public static var discard: Features { Features(rawValue: 4) }
        /// `discard-secure`.
        @inlinable public static var secureDiscard: Features { Features(rawValue: 8) }
    }

    /// Size in sectors of 512 bytes. 0: a drive without a medium, in which every transfer is beyond the end.
    public let capacity: UInt64
    public let isReadOnly: Bool
    public let features: Features
    /// `feature-max-indirect-segments`; 0: not offered.
    public let maxIndirectSegments: Int
    /// `sector-size` − 1 in sectors: requests start and end on multiples of the disk's own blocks.
    @usableFromInline let blockMask: UInt64

    /// - Parameters:
    ///   - capacity: sectors of 512 bytes.
    ///   - maxIndirectSegments: 0 (not offered) … 4096, eight full pages of them.
    ///   - logicalBlockSize: bytes, a power of two of at least 512; what `sector-size` says.
    public init(
        capacity: UInt64,
        isReadOnly: Bool = false,
        features: Features = [],
        maxIndirectSegments: Int = 0,
        logicalBlockSize: Int = 512
    ) {
        precondition(logicalBlockSize >= 512 && logicalBlockSize & (logicalBlockSize - 1) == 0)
        precondition(
            maxIndirectSegments >= 0
                && maxIndirectSegments <= BlockWire.maxIndirectPages * BlockWire.segmentsPerIndirectPage
        )
        self.capacity = capacity
        self.isReadOnly = isReadOnly
        self.features = features
        self.maxIndirectSegments = maxIndirectSegments
        blockMask = UInt64(logicalBlockSize / 512 - 1)
    }

    /// Bytes of the disk's own blocks; what `sector-size` says.
    public var logicalBlockSize: Int { (Int(truncatingIfNeeded: blockMask) + 1) * 512 }
}
