// How decoders and encoders see one slot: private bytes with fixed offsets.

/// Private bytes of one slot, read at fixed offsets in little-endian order (the order of every Xen architecture).
///
/// A conforming type holds a copy that no other domain can write. Offsets come from our own layout tables, never from
/// a frontend; an offset beyond `byteCount` is a bug of ours and traps.
public protocol WireBytes: ~Copyable {
    var byteCount: Int { get }
    func u8(_ offset: Int) -> UInt8
    func u16(_ offset: Int) -> UInt16
    func u32(_ offset: Int) -> UInt32
    func u64(_ offset: Int) -> UInt64
    /// Calls `body` with `count` consecutive 64-bit numbers. Checks the range once, where `u64` in a loop would check
    /// it each time.
    func forEachU64(_ offset: Int, count: Int, _ body: (UInt64) -> Void)
}

/// Private bytes of one slot that can be written too. A view: writing does not change the value, but what it shows.
public protocol WritableWireBytes: WireBytes, ~Copyable {
    func set8(_ value: UInt8, at offset: Int)
    func set16(_ value: UInt16, at offset: Int)
    func set32(_ value: UInt32, at offset: Int)
    func set64(_ value: UInt64, at offset: Int)
}

/// Sixteen bytes as two numbers in little-endian order: a response on its way to a ring, without a detour through
/// memory. Bytes that were not set are 0, so that padding leaks nothing (XSA-216).
public struct WireWords: Hashable, Sendable {
    public var low: UInt64
    public var high: UInt64

    @inlinable
    public init(low: UInt64, high: UInt64) {
        self.low = low
        self.high = high
    }
}
