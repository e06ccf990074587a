// Where the words of a request/response ring lie.

/// Byte offsets in the first page of a ring (ring.h, `DEFINE_RING_TYPES`).
public enum RingLayout {
    /// `req_prod`
    @inlinable public static var requestProducer: Int { 0 }
    /// `req_event`
    @inlinable public static var requestEvent: Int { 4 }
    /// `rsp_prod`
    @inlinable public static var responseProducer: Int { 8 }
    /// `rsp_event`
    @inlinable public static var responseEvent: Int { 12 }
    /// The first slot.
    @inlinable public static var slots: Int { 64 }
}
