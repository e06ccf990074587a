// One queue of an interface as a backend's turns use it: memory for packets both ways, and when to look.

public import HostIO
public import SharedRing

/// A packet from the host, in `receivePages`.
public struct ReceivedPacket: Hashable, Sendable {
    /// Where its `virtio_net_hdr` is, in `receiveHeaders`.
    public var header: Int
    /// Where its frame begins; the frame is in one piece.
    public var frame: Int
    public var byteCount: Int
}

/// Whether a port has room for another packet to the host.
public enum PacketRoom: Hashable, Sendable {
    case some
    /// The turn is as large as it may be.
    case notInThisTurn
    /// The host must take some first.
    case none
}

/// Carries packets between turns of a backend and one queue of an interface, without a copy of its own.
///
/// There are two ways: `PlainPort` reads and writes the queue's descriptor, `VhostPort` leaves that to a thread of the
/// kernel. A turn in one direction is one run through the members below in their order; turns of the two directions do
/// not overlap. A port belongs to one loop, and to one queue of a backend there; it allocates nothing per packet.
///
/// What a member throws means that this way is broken, not the interface: the packets that were under way are lost.
public protocol PacketPort: AnyObject {
    // MARK: to the host

    /// Memory that frames for the host are put into.
    var sendPages: PrivatePages { get }
    /// Begins a turn: what the host is done with is free again.
    func beginSending() throws(HostFailure)
    /// Whether there is room for another packet of any size.
    var room: PacketRoom { get }
    /// A place for `count` bytes (1 … 4096) of the next packet inside one page: a copy that crosses no page boundary is
    /// one operation for Xen. There was `room` before the packet's first piece.
    func place(_ count: Int, isFirst: Bool) -> Int
    /// Begins to send a packet whose first piece was placed at `first`; packets are sent in the order of their places, and
    /// some are not sent at all.
    /// - Returns: where the header belongs, of `PacketQueue.headerBytes` bytes, which may hold anything.
    func beginPacket(first: Int) -> Slot
    /// Adds a piece to the packet begun last, the first one included.
    func add(_ offset: Int, _ byteCount: Int)
    func endPacket()
    /// Sends the packets that were begun and ended in this turn.
    func send() throws(HostFailure)
    /// What became of packet `index` of this turn, as far as it is known: bytes, or a negated errno
    /// (`PacketBatch.result`).
    func result(_ index: Int) -> Int32
    /// There was no room: asks to be woken through `roomDescriptor` when there is some.
    /// - Returns: true if there is some already.
    func lastLookForRoom() throws(HostFailure) -> Bool
    /// Becomes readable when the host has made room; nil for a port that always has.
    var roomDescriptor: CInt? { get }
    /// Packets that the host was given and has not finished, and how many it has finished.
    var progress: (waiting: Int, done: UInt64) { get }

    // MARK: from the host

    var receivePages: PrivatePages { get }
    /// Memory of the headers; may be `receivePages`.
    var receiveHeaders: PrivatePages { get }
    /// Offset of each frame in its first page; copied to the same offset of another page, no page's copy crosses a boundary.
    var lead: Int { get }
    /// Whether any number of packets that `receive` found can be kept; otherwise only the last one.
    var keepsAll: Bool { get }
    /// `receiveDescriptor` became readable.
    func mayHaveInput()
    /// Becomes readable when there are packets.
    var receiveDescriptor: CInt { get }
    /// Looks for packets, without waiting.
    /// - Returns: how many there are, at most `limit`, which is at most 64.
    func receive(upTo limit: Int) throws(HostFailure) -> Int
    /// One of the packets that `receive` found; its bytes may be changed. nil: there was an error in its place.
    func packet(_ index: Int) -> ReceivedPacket?
    /// An errno of `receive`, negated, or 0.
    var receiveError: Int32 { get }
    /// Keeps the packets from `index` on for the next `receive`; nobody looks at them before.
    /// - Returns: how many could not be kept.
    func keep(from index: Int) -> Int
    /// Ends a turn: nobody looks any more at the packets that were not kept.
    /// - Parameter slots: how many pages the frontend has for further packets. The host gets no more than that.
    func endReceiving(slots: Int) throws(HostFailure)
    /// Whether there may be packets that `receive` has not found, or that were kept.
    var hasMore: Bool { get }
    /// Asks to be woken for the next packet.
    /// - Returns: true if there is one already.
    func lastLookForPackets() throws(HostFailure) -> Bool
    /// Whether the host has packets, or may have, and too few pages for them.
    var isStarved: Bool { get }

    // MARK: life

    /// Becomes readable when the host finds something wrong with the queue.
    var errorDescriptor: CInt? { get }
    /// Whether it did, since the last call.
    func takeError() -> Bool
    /// Whether the interface is still there: 0 or an errno.
    func look() -> CInt
    /// Ends this way. The host uses none of this memory any more when it returns.
    func close()
}

/// How packets get from us to the host's interface and back.
public enum PacketWay: Hashable, Sendable {
    /// A thread of the kernel takes them from our memory and puts them there.
    case vhost
    /// System calls of ours. The reason is for people.
    case plain(reason: String)
}
