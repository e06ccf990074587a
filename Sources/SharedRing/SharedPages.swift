// Memory that another domain can write while we look at it.

public import CRing

/// Pages shared with another domain: mapped grants of a frontend, or our own pages that we granted.
///
/// The bytes can change at any instant, so there is no way to get a `Span`, a typed pointer or an array of them:
/// data is copied out once, or copied in. The memory stays mapped as long as a reference to this object exists; the
/// last release unmaps it, so no ring or cache can outlive its pages.
@safe
public final class SharedPages: @unchecked Sendable {
    /// Bytes in one page of the Xen ABI, whatever the processor's page size (public/xen.h, `XEN_PAGE_SIZE`).
    public static let pageSize = 4096

    // SAFETY: `base` is valid for `byteCount` bytes until `release` runs, which is in deinit. Set once in init.
    @usableFromInline let base: UnsafeMutableRawPointer
    /// Bytes mapped, a multiple of `pageSize`.
    public let byteCount: Int
    private let release: @Sendable () -> Void

    /// Takes over `byteCount` bytes at `base`, to be given back by `release`.
    @unsafe
    public init(base: UnsafeMutableRawPointer, byteCount: Int, release: @escaping @Sendable () -> Void) {
        unsafe self.base = base
        self.byteCount = byteCount
        self.release = release
    }

    deinit { release() }

    /// The same pages, together with `owner`, which is released with the last reference to them.
    public func held(by owner: some AnyObject & Sendable) -> SharedPages {
        // SAFETY: valid as long as this object is, which `owner` keeps.
        unsafe SharedPages(base: base, byteCount: byteCount) { withExtendedLifetime(owner) {} }
    }

    /// Pages mapped.
    public var pageCount: Int { byteCount / SharedPages.pageSize }

    /// Copies `count` bytes at `offset` into private memory. Offsets are ours: out of range traps.
    @inlinable
    public func copyOut(at offset: Int, count: Int, to pages: PrivatePages, at target: Int) {
        precondition(offset >= 0 && count >= 0 && count <= byteCount &- offset)
        precondition(target >= 0 && count <= pages.byteCount &- target)
        // SAFETY: both ranges were checked just above; the regions never overlap (shared and private mappings).
        unsafe pages.base.advanced(by: target).copyMemory(from: base.advanced(by: offset), byteCount: count)
    }

    /// Copies `count` private bytes into the shared pages at `offset`. Offsets are ours: out of range traps.
    @inlinable
    public func copyIn(at offset: Int, count: Int, from pages: PrivatePages, at source: Int) {
        precondition(offset >= 0 && count >= 0 && count <= byteCount &- offset)
        precondition(source >= 0 && count <= pages.byteCount &- source)
        // SAFETY: both ranges were checked just above; the regions never overlap (shared and private mappings).
        unsafe base.advanced(by: offset).copyMemory(from: pages.base.advanced(by: source), byteCount: count)
    }

    /// Fills all pages with zero bytes, as a page must be before it is granted.
    public func zero() {
        // SAFETY: the whole mapping.
        unsafe base.initializeMemory(as: UInt8.self, repeating: 0, count: byteCount)
    }

    /// Reads one 32-bit word once. `offset` is ours and a multiple of 4.
    @inlinable
    public func loadAcquire(at offset: Int) -> UInt32 {
        precondition(offset >= 0 && offset & 3 == 0 && 4 <= byteCount &- offset)
        return unsafe sharedLoadAcquire(base.advanced(by: offset))
    }

    /// Writes one 32-bit word after everything written before. `offset` is ours and a multiple of 4.
    @inlinable
    public func storeRelease(_ value: UInt32, at offset: Int) {
        precondition(offset >= 0 && offset & 3 == 0 && 4 <= byteCount &- offset)
        unsafe sharedStoreRelease(base.advanced(by: offset), value)
    }

    /// Sets bits of a word that the other end changes as well, after everything written before. `offset` is ours and a
    /// multiple of 4.
    public func setBits(_ bits: UInt32, at offset: Int) {
        precondition(offset >= 0 && offset & 3 == 0 && 4 <= byteCount &- offset)
        // SAFETY: checked just above.
        unsafe ring_set_bits(base.advanced(by: offset), bits)
    }

    /// Clears bits of such a word.
    public func clearBits(_ bits: UInt32, at offset: Int) {
        precondition(offset >= 0 && offset & 3 == 0 && 4 <= byteCount &- offset)
        // SAFETY: checked just above.
        unsafe ring_clear_bits(base.advanced(by: offset), bits)
    }

    /// Looks at such a word until one of `bits` is set in it, `count` times at most.
    /// - Returns: whether one is.
    public func sees(_ bits: UInt32, at offset: Int, looking count: Int) -> Bool {
        for _ in 0..<count {
            if loadAcquire(at: offset) & bits != 0 { return true }
            ring_relax()
        }
        return false
    }

    /// Orders everything before it, stores among them, before every load after it.
    public static func fence() { ring_full_fence() }

    /// The address, for a system call that grants, maps or copies. Never dereference it.
    @unsafe
    public var unsafeBase: UnsafeMutableRawPointer { unsafe base }
}

@unsafe
@inlinable
func sharedLoadAcquire(_ word: UnsafeRawPointer) -> UInt32 { unsafe ring_load_acquire(word) }

@unsafe
@inlinable
func sharedStoreRelease(_ word: UnsafeMutableRawPointer, _ value: UInt32) { unsafe ring_store_release(word, value) }
