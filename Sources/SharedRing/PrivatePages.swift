// Page-aligned memory of our own, addressed by offsets that are checked.

internal import CRing
public import SystemPackage
public import XenWire

#if canImport(Glibc)
    internal import Glibc
#endif

/// Page-aligned private memory: I/O buffers, request slots, journals.
///
/// Other targets name bytes in it by offset; the address is for system calls only. Anonymous memory becomes resident
/// only as it is used.
@safe
public final class PrivatePages: @unchecked Sendable {
    // SAFETY: `base` is a mapping of `byteCount` bytes made in init and unmapped in deinit.
    @usableFromInline let base: UnsafeMutableRawPointer
    /// Bytes mapped.
    public let byteCount: Int

    /// Maps `byteCount` bytes (rounded up to pages) of zeroed anonymous memory.
    /// - Throws: `ENOMEM` and the other errors of mmap(2).
    public convenience init(byteCount: Int) throws(Errno) {
        try self.init(byteCount: byteCount, descriptor: -1, flags: MAP_PRIVATE | MAP_ANONYMOUS)
    }

    /// Maps the first `byteCount` bytes of a file, shared, so that they survive this process. The file is extended if
    /// necessary, and all of it is reserved first: a store into a page for which the file system has no room would
    /// raise SIGBUS.
    /// - Throws: the errors of posix_fallocate(3) and mmap(2), `ENOSPC` among them.
    public convenience init(byteCount: Int, file: FileDescriptor) throws(Errno) {
        var status: CInt
        repeat { status = posix_fallocate(file.rawValue, 0, off_t(byteCount)) } while status == EINTR
        guard status == 0 else { throw Errno(rawValue: status) }
        try self.init(byteCount: byteCount, descriptor: file.rawValue, flags: MAP_SHARED)
    }

    private init(byteCount: Int, descriptor: CInt, flags: CInt) throws(Errno) {
        precondition(byteCount > 0)
        let length = (byteCount + 4095) & ~4095
        let address = unsafe mmap(nil, length, PROT_READ | PROT_WRITE, flags, descriptor, 0)
        guard let address = unsafe address, unsafe address != MAP_FAILED else { throw Errno(rawValue: errno) }
        unsafe base = address
        self.byteCount = length
    }

    /// Maps zeroed memory of `byteCount` bytes twice, one behind the other: what runs over the end of the first goes on at
    /// its beginning. `byteCount` of the result is that of both.
    /// - Throws: the errors of memfd_create(2) and mmap(2).
    public static func mirrored(byteCount: Int) throws(Errno) -> PrivatePages {
        precondition(byteCount > 0 && byteCount & 4095 == 0)
        let pages = try PrivatePages(byteCount: 2 * byteCount)
        // SAFETY: over the mapping that was just made, which nobody else knows yet.
        let status = unsafe ring_mirror(pages.base, byteCount)
        if status != 0 { throw Errno(rawValue: status) }
        return pages
    }

    deinit { _ = unsafe munmap(base, byteCount) }

    /// The slot of `byteCount` bytes at `offset`. Offsets are ours: out of range traps.
    @inlinable
    public func slot(at offset: Int, byteCount: Int) -> Slot {
        precondition(offset >= 0 && byteCount >= 0 && byteCount <= self.byteCount &- offset)
        return unsafe Slot(base: base.advanced(by: offset), byteCount: byteCount)
    }

    /// Fills a range with zero bytes.
    @inlinable
    public func zero(at offset: Int, count: Int) {
        precondition(offset >= 0 && count >= 0 && count <= byteCount &- offset)
        // SAFETY: checked just above.
        unsafe base.advanced(by: offset).initializeMemory(as: UInt8.self, repeating: 0, count: count)
    }

    /// Calls `body` with the bytes of a range, for tests and for formats parsed from private memory.
    @inlinable
    public func withBytes<R, E: Error>(
        at offset: Int,
        count: Int,
        _ body: (RawSpan) throws(E) -> R
    ) throws(E) -> R {
        precondition(offset >= 0 && count >= 0 && count <= byteCount &- offset)
        // SAFETY: checked just above; the span cannot outlive the call.
        let buffer = unsafe UnsafeRawBufferPointer(start: base.advanced(by: offset), count: count)
        return try body(unsafe RawSpan(_unsafeBytes: buffer))
    }

    /// Copies `count` bytes from `source` of other private pages to `target` of these.
    @inlinable
    public func copy(from pages: PrivatePages, at source: Int, count: Int, to target: Int) {
        precondition(count >= 0 && source >= 0 && count <= pages.byteCount &- source)
        precondition(target >= 0 && count <= byteCount &- target)
        // SAFETY: both ranges were checked just above; copyMemory allows them to overlap.
        unsafe base.advanced(by: target).copyMemory(from: pages.base.advanced(by: source), byteCount: count)
    }

    /// Copies bytes in from an array.
    public func write(_ bytes: [UInt8], at offset: Int) {
        precondition(offset >= 0 && bytes.count <= byteCount &- offset)
        unsafe bytes.withUnsafeBytes {
            // SAFETY: checked just above.
            if let source = $0.baseAddress {
                unsafe base.advanced(by: offset).copyMemory(from: source, byteCount: bytes.count)
            }
        }
    }

    /// The address of a range, for a system call. Never keep it beyond this object's life.
    @unsafe
    @inlinable
    public func unsafeAddress(at offset: Int, count: Int) -> UnsafeMutableRawPointer {
        precondition(offset >= 0 && count >= 0 && count <= byteCount &- offset)
        return unsafe base.advanced(by: offset)
    }
}

/// One slot in private memory: the only copy of a request that is ever read (which prevents XSA-155).
///
/// A slot is a view: valid while the `PrivatePages` it came from lives, which the owner of both (a queue, a journal)
/// guarantees by holding it. It is passed down the pipeline's stages and never stored by them.
@safe
public struct Slot: WritableWireBytes {
    // SAFETY: valid for `byteCount` bytes while the PrivatePages it came from lives.
    @usableFromInline let base: UnsafeMutableRawPointer
    public let byteCount: Int

    @unsafe
    @inlinable
    init(base: UnsafeMutableRawPointer, byteCount: Int) {
        unsafe self.base = base
        self.byteCount = byteCount
    }

    /// A copy of all its bytes.
    public var bytes: [UInt8] {
        // SAFETY: the whole slot, for the time of the copy.
        unsafe [UInt8](UnsafeRawBufferPointer(start: base, count: byteCount))
    }

    @inlinable
    public func u8(_ offset: Int) -> UInt8 {
        precondition(offset >= 0 && offset < byteCount)
        return unsafe base.load(fromByteOffset: offset, as: UInt8.self)
    }
    @inlinable
    public func u16(_ offset: Int) -> UInt16 {
        precondition(offset >= 0 && offset &+ 2 <= byteCount)
        return unsafe UInt16(littleEndian: base.loadUnaligned(fromByteOffset: offset, as: UInt16.self))
    }
    @inlinable
    public func u32(_ offset: Int) -> UInt32 {
        precondition(offset >= 0 && offset &+ 4 <= byteCount)
        return unsafe UInt32(littleEndian: base.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
    }
    @inlinable
    public func u64(_ offset: Int) -> UInt64 {
        precondition(offset >= 0 && offset &+ 8 <= byteCount)
        return unsafe UInt64(littleEndian: base.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
    }
    @inlinable
    public func forEachU64(_ offset: Int, count: Int, _ body: (UInt64) -> Void) {
        precondition(offset >= 0 && offset <= byteCount && count >= 0 && count <= (byteCount &- offset) &>> 3)
        // SAFETY: the range was checked just above.
        var word = unsafe UnsafeRawPointer(base) + offset
        let end = unsafe word + count &* 8
        while unsafe word != end {
            unsafe body(UInt64(littleEndian: word.loadUnaligned(as: UInt64.self)))
            unsafe word += 8
        }
    }
    @inlinable
    public func set8(_ value: UInt8, at offset: Int) {
        precondition(offset >= 0 && offset < byteCount)
        unsafe base.storeBytes(of: value, toByteOffset: offset, as: UInt8.self)
    }
    @inlinable
    public func set16(_ value: UInt16, at offset: Int) {
        precondition(offset >= 0 && offset &+ 2 <= byteCount)
        unsafe base.storeBytes(of: value.littleEndian, toByteOffset: offset, as: UInt16.self)
    }
    @inlinable
    public func set32(_ value: UInt32, at offset: Int) {
        precondition(offset >= 0 && offset &+ 4 <= byteCount)
        unsafe base.storeBytes(of: value.littleEndian, toByteOffset: offset, as: UInt32.self)
    }
    @inlinable
    public func set64(_ value: UInt64, at offset: Int) {
        precondition(offset >= 0 && offset &+ 8 <= byteCount)
        unsafe base.storeBytes(of: value.littleEndian, toByteOffset: offset, as: UInt64.self)
    }
}
