// How a network frontend connects, the result, and its counters.

public import XenWire

/// What a frontend asks for; it accepts less where the backend offers less. The defaults are what Linux's netfront asks
/// for, with one queue.
public struct NetworkFrontendOptions: Sendable {
    public var queueCount = 1
    /// One channel for each direction of each queue, if the backend can.
    public var splitEventChannels = true
    /// A control ring, if the backend has them (Linux has none, Windows does).
    public var controlRing = false
    /// The receive features that we announce.
    public var receives: ReceiveFeatures = [
        .scatterGather, .checksumV4, .checksumV6, .segmentationV4, .segmentationV6,
    ]
    /// `feature-rx-notify`
    public var receiveNotify = true
    /// `request-multicast-control`
    public var multicastControl = false
    /// Pages posted on each queue: a power of two up to 256.
    public var receiveBuffers = 256
    /// Pages for packets to send on each queue, 1 … 256.
    public var transmitBuffers = 256
    /// Whether pages are posted from the beginning; see `NetworkFrontend.setPosting`.
    public var postsBuffers = true
    /// Whether the checksum of every received packet is completed or verified, and counted if wrong.
    public var verifiesChecksums = true
    /// Packets kept for `nextPacket` at most; more are dropped, and counted.
    public var inboxCapacity = 4096

    public init() {}
}

/// What was negotiated: constant for one connection.
public struct NetworkFrontendConnection: Sendable {
    public let queueCount: Int
    public let splitEventChannels: Bool
    public let hasControlRing: Bool
    /// The backend takes packets in several slots; without it, one of 4096 bytes.
    public let scatterGather: Bool
    /// TCP segmentation that the backend takes.
    public let segmentations: Set<Segmentation.Kind>
    /// Blank checksums that the backend takes.
    public let checksumV4: Bool
    public let checksumV6: Bool
    public let multicastControl: Bool
    /// From the toolstack, if it is an address.
    public let mac: MACAddress?
    public let backend: DomainID
}

/// What a queue counted since it was made.
public struct NetworkFrontendStatistics: Sendable, Hashable {
    public var sentPackets: UInt64 = 0
    public var sentBytes: UInt64 = 0
    /// Slots of the transmit ring, extras included.
    public var sentSlots: UInt64 = 0
    /// Packets of which the backend answered at least one slot with an error.
    public var failedPackets: UInt64 = 0
    public var receivedPackets: UInt64 = 0
    public var receivedBytes: UInt64 = 0
    /// Slots of the receive ring, extras included.
    public var receivedSlots: UInt64 = 0
    /// Received packets that are to be segmented.
    public var receivedSegmented: UInt64 = 0
    public var receivedBlank: UInt64 = 0
    /// Received packets whose checksum was wrong, or blank without TCP or UDP.
    public var wrongChecksums: UInt64 = 0
    /// Received packets that Linux would drop: invalid lengths, extras or slots.
    public var badPackets: UInt64 = 0
    /// Responses whose id is not that of the slot they are in.
    public var misplacedResponses: UInt64 = 0
    /// Received packets that nobody took in time.
    public var droppedByUs: UInt64 = 0
    /// Events received and sent.
    public var events: UInt64 = 0
    public var notifications: UInt64 = 0

    public init() {}

    public static func + (left: Self, right: Self) -> Self {
        var sum = left
        for field in fields { sum[keyPath: field] += right[keyPath: field] }
        return sum
    }

    private static var fields: [WritableKeyPath<Self, UInt64>] {
        [
            \.sentPackets, \.sentBytes, \.sentSlots, \.failedPackets, \.receivedPackets, \.receivedBytes,
            \.receivedSlots, \.receivedSegmented, \.receivedBlank, \.wrongChecksums, \.badPackets,
            \.misplacedResponses, \.droppedByUs, \.events, \.notifications,
        ]
    }
}
