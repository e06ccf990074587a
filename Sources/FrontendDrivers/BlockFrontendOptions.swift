// How a block frontend connects, and the result.

public import XenWire

/// What a frontend asks for; it accepts less where the backend offers less.
public struct BlockFrontendOptions: Sendable {
    /// The layout of our slots; any but the native one is for tests.
    public var abi = BlockABI.native
    /// Whether to write the `protocol` key. Without it the backend assumes the native layout.
    public var writesProtocol = true
    /// The ring has 2 to the power of this many pages.
    public var ringPageOrder = 0
    public var queueCount = 1
    public var persistent = true
    /// Segments (pages) of one request; more than 11 makes requests indirect. 0: no indirect requests.
    public var indirectSegments = 32
    /// Requests in flight on each queue at most, if the ring has room for them.
    public var requestsPerQueue = 32
    /// Grants pages for each request and ends the grants with its answer, as blkfront does without persistent grants.
    /// Otherwise pages stay granted as long as the connection.
    public var grantsEachRequest = false

    public init() {}
}

/// What was negotiated: constant for one connection, except for the capacity.
public struct BlockFrontendConnection: Sendable {
    /// 512-byte sectors.
    public internal(set) var sectors: UInt64
    /// Bytes of the disk's own blocks.
    public let sectorSize: Int
    public let flags: BlockDeviceFlags
    public let features: BlockLimits.Features
    public let persistent: Bool
    /// Segments of one request.
    public let maxSegments: Int
    public let queueCount: Int
    /// Slots of each ring.
    public let ringSize: Int
    public let backend: DomainID
}
