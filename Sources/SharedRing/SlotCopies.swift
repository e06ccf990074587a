// Copies of one slot out of or into a ring page, for the sizes that Xen's protocols use.

public import CRing
public import XenWire

/// Copies one slot out of shared memory, once. The frequent sizes take a few instructions instead of a call.
@unsafe
@inlinable
@inline(__always)
func copySlot(from source: UnsafeRawPointer, to target: UnsafeMutableRawPointer, count: Int) {
    switch count {
    case 2: unsafe ring_copy_2(target, source)
    case 4: unsafe ring_copy_4(target, source)
    case 8: unsafe ring_copy_8(target, source)
    case 12: unsafe ring_copy_12(target, source)
    case 16: unsafe ring_copy_16(target, source)
    case 112: unsafe ring_copy_112(target, source)
    case 108: unsafe ring_copy_108(target, source)
    case 148: unsafe ring_copy_148(target, source)
    default: unsafe ring_copy(target, source, UInt32(truncatingIfNeeded: count))
    }
}

/// Writes the first `count` (2, 4, 8, 12 or 16) bytes of `words` into shared memory.
@unsafe
@inlinable
@inline(__always)
func putSlot(_ words: WireWords, to target: UnsafeMutableRawPointer, count: Int) {
    switch count {
    case 2: unsafe ring_put_2(target, UInt16(truncatingIfNeeded: words.low).littleEndian)
    case 4: unsafe ring_put_4(target, UInt32(truncatingIfNeeded: words.low).littleEndian)
    case 8: unsafe ring_put_8(target, words.low.littleEndian)
    case 12:
        unsafe ring_put_12(target, words.low.littleEndian, UInt32(truncatingIfNeeded: words.high).littleEndian)
    case 16: unsafe ring_put_16(target, words.low.littleEndian, words.high.littleEndian)
    default: preconditionFailure("no slot has this size")
    }
}
