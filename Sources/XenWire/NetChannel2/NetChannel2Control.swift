// The control page of netchannel2's rings (uring.h): who writes which index where, and when the other end must be told.

/// One of the two ends of a link. A frontend allocates the pages and allocates the event channel.
public enum NetChannel2End: Hashable, Sendable {
    case frontend
    case backend

    @inlinable public var other: NetChannel2End { self == .frontend ? .backend : .frontend }
}

/// Where the words of both rings lie in the control page. A ring is named by the end that produces on it.
///
/// A type, so that the offsets are constants where a ring is used; another library of the same name groups them by owner.
public protocol NetChannel2ControlLayout: Sendable {
    /// `prod`: written by the ring's producer.
    static func producer(_ ring: NetChannel2End) -> Int
    /// `cons`: written by its consumer.
    static func consumer(_ ring: NetChannel2End) -> Int
    /// `prod_event`: written by its consumer, who wants an event when `prod` reaches it.
    static func producerEvent(_ ring: NetChannel2End) -> Int
    /// `cons_event`: written by its producer, who wants an event when `cons` reaches it.
    static func consumerEvent(_ ring: NetChannel2End) -> Int
}

/// The layout of netchannel2 itself: a block of 64 bytes for each ring, the frontend's first.
public enum NetChannel2Layout: NetChannel2ControlLayout {
    @inlinable static func block(_ ring: NetChannel2End) -> Int { ring == .frontend ? 0 : 64 }
    @inlinable public static func producer(_ ring: NetChannel2End) -> Int { block(ring) }
    @inlinable public static func consumer(_ ring: NetChannel2End) -> Int { block(ring) &+ 4 }
    @inlinable public static func producerEvent(_ ring: NetChannel2End) -> Int { block(ring) &+ 8 }
    @inlinable public static func consumerEvent(_ ring: NetChannel2End) -> Int { block(ring) &+ 12 }
}

/// Arithmetic of indices, which run freely and wrap at 2³².
public enum NetChannel2Index {
    /// Whether a message of `byteCount` bytes at `index` needs a PAD before it. One that would end exactly at the end of
    /// the ring does, too: that is how uring.h sees it.
    @inlinable
    public static func wraps(_ index: UInt32, _ byteCount: UInt32, ringBytes: UInt32) -> Bool {
        let lap = ~(ringBytes &- 1)
        return index & lap != (index &+ byteCount) & lap
    }

    /// Bytes from `index` to the end of the ring: the size of the PAD.
    @inlinable
    public static func padding(_ index: UInt32, ringBytes: UInt32) -> UInt32 {
        ringBytes &- (index & (ringBytes &- 1))
    }

    /// Whether an index that moved from `old` to `new` has come to `event` or past it.
    @inlinable
    public static func mustNotify(old: UInt32, new: UInt32, event: UInt32) -> Bool { new &- event < new &- old }
}
