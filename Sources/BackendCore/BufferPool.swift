// The buffers of one data loop: 64 KiB chunks of page-aligned memory, resident as they are used.

public import SharedRing
public import SystemPackage

/// A stack of chunks in one arena: last in, first out, so that an idle disk keeps few pages resident.
public struct BufferPool: ~Copyable {
    /// Bytes of a chunk.
    public static let chunkBytes = 65536
    /// The arena; chunk `n` begins at `n × chunkBytes`.
    public let pages: PrivatePages
    private var free: [UInt16]

    /// - Throws: the errors of mmap(2).
    public init(chunks: Int = 128) throws(Errno) {
        pages = try PrivatePages(byteCount: chunks * BufferPool.chunkBytes)
        free = (0..<chunks).reversed().map { UInt16(truncatingIfNeeded: $0) }
    }

    /// Chunks that can be taken.
    public var available: Int { free.count }

    /// nil if all are in use.
    public mutating func take() -> UInt16? { free.popLast() }

    /// Gives a chunk back.
    public mutating func give(_ chunk: UInt16) { free.append(chunk) }
}
