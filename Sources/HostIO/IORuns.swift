// The pieces of private memory that one transfer fills or drains, in file order.

/// Up to `IORuns.capacity` runs of bytes inside one `PrivatePages`, in the order in which they lie in the file.
///
/// Made once per queue and refilled for each transfer: it allocates only when it is created.
@safe
public struct IORuns: ~Copyable, @unchecked Sendable {
    /// Runs that fit; adjacent ones count as one.
    public static let capacity = 64

    /// One run of bytes.
    public struct Run: Equatable, Sendable {
        /// Where it starts in the pages.
        public var offset: Int
        /// Its length in bytes, above 0.
        public var byteCount: Int

        @inlinable
        public init(offset: Int, byteCount: Int) {
            self.offset = offset
            self.byteCount = byteCount
        }
    }

    // SAFETY: `capacity` initialised runs allocated in init and freed in deinit; indices are checked against `count`.
    @usableFromInline let storage: UnsafeMutablePointer<Run>
    /// Runs in the list.
    public var count: Int { storedCount }
    /// Bytes in all runs.
    public var byteCount: Int { storedByteCount }
    @usableFromInline var storedCount = 0
    @usableFromInline var storedByteCount = 0

    /// An empty list.
    public init() {
        unsafe storage = .allocate(capacity: IORuns.capacity)
        unsafe storage.initialize(repeating: Run(offset: 0, byteCount: 0), count: IORuns.capacity)
    }

    /// A list of one run.
    public init(offset: Int, byteCount: Int) {
        self.init()
        append(offset: offset, byteCount: byteCount)
    }

    deinit { unsafe storage.deallocate() }

    /// The run at `position`, which must be below `count`.
    @inlinable
    public subscript(position: Int) -> Run {
        precondition(position >= 0 && position < count)
        return unsafe storage[position]
    }

    /// Adds a run at the end, joined to the last one if it goes on where that ends.
    /// - Returns: false, and nothing is added, if the list is full.
    @inlinable
    @discardableResult
    public mutating func append(offset: Int, byteCount added: Int) -> Bool {
        precondition(offset >= 0 && added > 0)
        if count > 0, unsafe storage[count &- 1].offset &+ storage[count &- 1].byteCount == offset {
            unsafe storage[count &- 1].byteCount &+= added
        } else {
            if storedCount == IORuns.capacity { return false }
            unsafe storage[count] = Run(offset: offset, byteCount: added)
            storedCount &+= 1
        }
        storedByteCount &+= added
        return true
    }

    /// Empties the list.
    @inlinable
    public mutating func removeAll() {
        storedCount = 0
        storedByteCount = 0
    }

    /// Drops the first bytes, to go on after a short transfer. `bytes` is at most `byteCount`.
    public mutating func removeFirst(bytes: Int) {
        precondition(bytes >= 0 && bytes <= byteCount)
        var left = bytes
        var position = 0
        while left > 0, unsafe storage[position].byteCount <= left {
            left &-= unsafe storage[position].byteCount
            position &+= 1
        }
        if left > 0 {
            unsafe storage[position].offset &+= left
            unsafe storage[position].byteCount &-= left
        }
        for kept in position..<count { unsafe storage[kept &- position] = storage[kept] }
        storedCount &-= position
        storedByteCount &-= bytes
    }
}
