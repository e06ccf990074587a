// Ordered stores into private memory that a successor process may read: the journal's words.

internal import CRing

extension Slot {
    /// Writes one 32-bit word after everything written before, as seen by whoever maps the same file later.
    @inlinable
    public func storeRelease(_ value: UInt32, at offset: Int) {
        precondition(offset >= 0 && offset & 3 == 0 && offset &+ 4 <= byteCount)
        unsafe sharedStoreRelease(base.advanced(by: offset), value)
    }

    /// Reads one 32-bit word once.
    @inlinable
    public func loadAcquire(at offset: Int) -> UInt32 {
        precondition(offset >= 0 && offset & 3 == 0 && offset &+ 4 <= byteCount)
        return unsafe sharedLoadAcquire(base.advanced(by: offset))
    }
}
