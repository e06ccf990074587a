// How decoders see one slot: private bytes with fixed offsets.

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
}
