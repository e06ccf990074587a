// A batch of grant copies: what to copy, and the status of each copy.

public import XenWire

/// Xen's status of one copy (public/grant_table.h, `GNTST_*`): 0 is okay, anything else is an error.
public struct GrantStatus: Hashable, Sendable {
    public let rawValue: Int16
    @inlinable public init(_ rawValue: Int16) { self.rawValue = rawValue }
    /// `GNTST_okay`.
    @inlinable public static var okay: GrantStatus { GrantStatus(0) }
    /// `GNTST_general_error`.
    @inlinable public static var generalError: GrantStatus { GrantStatus(-1) }
    /// `GNTST_bad_gntref`.
    public static let badReference = GrantStatus(-3)
    /// `GNTST_permission_denied`.
    public static let permissionDenied = GrantStatus(-8)
    /// `GNTST_bad_copy_arg`.
    public static let badCopyArgument = GrantStatus(-10)
}

/// One copy between a granted page of another domain and private memory of ours.
@safe
public struct GrantCopy: Sendable {
    public var reference: GrantReference
    /// First byte in the granted page; `pageOffset + byteCount` is at most 4096.
    public var pageOffset: UInt16
    public var byteCount: UInt16
    /// true: into the granted page (needs a writable grant). false: out of it.
    public var intoGrant: Bool
    public var status: GrantStatus
    // SAFETY: inside a PrivatePages that the batch's owner holds until the batch is cleared.
    @usableFromInline nonisolated(unsafe) let address: UnsafeMutableRawPointer

    @unsafe
    @inlinable
    init(
        reference: GrantReference,
        pageOffset: UInt16,
        byteCount: UInt16,
        intoGrant: Bool,
        address: UnsafeMutableRawPointer
    ) {
        self.reference = reference
        self.pageOffset = pageOffset
        self.byteCount = byteCount
        self.intoGrant = intoGrant
        status = .generalError
        unsafe self.address = address
    }

    /// The private end, for the hypercall.
    @unsafe public var unsafeAddress: UnsafeMutableRawPointer { unsafe address }
}

/// Copies to be made in one hypercall. The capacity is fixed at creation; filling and clearing allocate nothing.
public struct GrantCopyBatch: ~Copyable {
    @usableFromInline var copies: [GrantCopy] = []
    public let capacity: Int

    public init(capacity: Int) {
        self.capacity = capacity
        copies.reserveCapacity(capacity)
    }

    @inlinable public var count: Int { copies.count }
    @inlinable public var isFull: Bool { copies.count >= capacity }

    /// Adds a copy. The caller validated `pageOffset` and `byteCount` against the page and `privateOffset` is ours.
    /// - Returns: its index in the batch.
    @inlinable
    @discardableResult
    public mutating func add(
        reference: GrantReference,
        pageOffset: UInt16,
        byteCount: UInt16,
        intoGrant: Bool,
        pages: PrivatePages,
        privateOffset: Int
    ) -> Int {
        precondition(Int(pageOffset) &+ Int(byteCount) <= SharedPages.pageSize)
        // SAFETY: unsafeAddress checks the range; the owner keeps `pages` alive while the batch holds the copy.
        let address = unsafe pages.unsafeAddress(at: privateOffset, count: Int(byteCount))
        copies.append(
            unsafe GrantCopy(
                reference: reference,
                pageOffset: pageOffset,
                byteCount: byteCount,
                intoGrant: intoGrant,
                address: address
            )
        )
        return copies.count &- 1
    }

    /// Copy `index`; for implementations of `GrantTable`.
    @inlinable public subscript(index: Int) -> GrantCopy { copies[index] }

    /// The status of copy `index` after the batch ran.
    @inlinable public func status(of index: Int) -> GrantStatus { copies[index].status }

    /// Records the status of copy `index`; for implementations of `GrantTable`.
    @inlinable
    public mutating func setStatus(_ status: GrantStatus, of index: Int) { copies[index].status = status }

    /// Empties the batch, keeping its memory.
    @inlinable public mutating func clear() { copies.removeAll(keepingCapacity: true) }
}
