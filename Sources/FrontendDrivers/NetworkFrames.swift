// Packets on their way out of and into a network frontend.

public import SharedRing
public import XenWire

/// What accompanies a packet in the ring, and how the packet is divided into slots.
public struct NetworkFrame: Sendable {
    public var flags: TransmitFlags
    public var segmentation: Segmentation?
    /// Extras beyond the segmentation's, before it.
    public var extras: [ExtraInfo] = []
    /// First byte that is used of each page.
    public var pageOffset = 0
    /// Bytes of each slot at most.
    public var fragmentByteCount = SharedPages.pageSize

    /// - Parameter flags: `checksumBlank` and `dataValidated`; the others are found out.
    public init(flags: TransmitFlags = [], segmentation: Segmentation? = nil) {
        self.flags = flags
        self.segmentation = segmentation
    }

    /// Bytes of the packet in each slot but the last.
    var capacity: Int { max(1, min(fragmentByteCount, SharedPages.pageSize - pageOffset)) }
    var extraCount: Int { extras.count + (segmentation == nil ? 0 : 1) }
    func slotCount(_ byteCount: Int) -> Int { max(1, (byteCount + capacity - 1) / capacity) }
}

/// A received packet, as its receiver sees it: valid only until the receiver returns.
public struct NetworkPacket: Sendable {
    public let queue: Int
    public let byteCount: Int
    public let flags: ReceiveFlags
    public let segmentation: Segmentation?
    public let hash: PacketHash?
    /// Slots of data.
    public let slotCount: Int
    let pages: PrivatePages

    /// The packet's bytes.
    public var slot: Slot { pages.slot(at: 0, byteCount: byteCount) }

    /// A copy that can be kept.
    public var received: ReceivedPacket {
        let slot = slot
        return ReceivedPacket(
            queue: queue,
            bytes: (0..<byteCount).map { slot.u8($0) },
            flags: flags,
            segmentation: segmentation,
            hash: hash,
            slotCount: slotCount
        )
    }
}

/// A received packet that was kept.
public struct ReceivedPacket: Sendable, Hashable {
    public let queue: Int
    /// With its checksum completed, if the frontend verifies checksums.
    public let bytes: [UInt8]
    public let flags: ReceiveFlags
    public let segmentation: Segmentation?
    public let hash: PacketHash?
    public let slotCount: Int
}
