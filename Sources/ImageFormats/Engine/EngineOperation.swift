// What an engine wants done on its files, and how it hears of the end.

/// One operation on a file of the chain. Buffers are ranges of the engine's own pages.
public struct EngineOperation: Equatable, Sendable {
    public enum Kind: Equatable, Sendable {
        /// Reads into the buffer; the result is a number of bytes, fewer at the file's end.
        case read
        /// Writes from the buffer; the result is a number of bytes.
        case write
        /// Makes all that was written durable.
        case flush
        /// Gives a range back to the host.
        case punch
        /// Decompresses the buffer's first `byteCount` bytes to `output` of the same pages: 0, or a negated `errno`.
        case decompress(CompressedCluster, output: Int)
    }
    public var kind: Kind
    /// The layer: 0 is the leaf.
    public var file: Int
    /// In the file.
    public var offset: UInt64
    public var byteCount: UInt64
    /// In the engine's pages.
    public var buffer: Int
    /// Names the operation when it has ended.
    public var token: UInt32

    public init(
        kind: Kind,
        file: Int,
        offset: UInt64,
        byteCount: UInt64,
        buffer: Int,
        token: UInt32
    ) {
        self.kind = kind
        self.file = file
        self.offset = offset
        self.byteCount = byteCount
        self.buffer = buffer
        self.token = token
    }
}
