// What an engine wants done on its files, and what it tells the rings.

public import SharedRing
public import SystemPackage

/// One operation on a file of the chain. Its end is told to `ImageEngine.completed`.
public struct EngineOperation: Sendable {
    public enum Kind: Equatable, Sendable {
        /// Reads into the buffer; the result is a number of bytes, fewer at the file's end.
        case read
        /// Writes from the buffer; the result is a number of bytes.
        case write
        /// Makes all that was written durable; 0.
        case flush
        /// Gives a range back to the host; 0.
        case punch
        /// Decompresses the buffer's `byteCount` bytes to `output` of the same pages; 0.
        case decompress(CompressedCluster, output: Int)
    }
    public var kind: Kind
    /// The layer: 0 is the leaf.
    public var file: Int
    /// In the file.
    public var offset: UInt64
    public var byteCount: Int
    public var pages: PrivatePages
    /// Where the buffer begins in `pages`.
    public var buffer: Int
    /// Names the operation when it has ended.
    public var token: UInt32
}

/// What a ring has to do for one of its requests. `token` comes back with `ImageEngine.moved`.
public enum EngineOrder: Equatable, Sendable {
    /// Move the request's bytes, without its first `skip`, between its buffers and a file of the chain. A read that is
    /// short because the file ends is completed with zeroes.
    case transfer(request: Int, isWrite: Bool, file: Int, offset: UInt64, skip: Int, byteCount: Int, token: UInt32)
    /// The request's bytes become zeroes.
    case zero(request: Int, skip: Int, byteCount: Int)
    /// The request's bytes are in the engine's pages: copy them before anything else.
    case copy(request: Int, buffer: Int, skip: Int, byteCount: Int, token: UInt32)
    /// The request is done.
    case ended(request: Int, errno: Errno?)
}

/// What a ring asks for.
public enum EngineRequestKind: UInt8, Sendable {
    case read
    case write
    case zero
    case discard
    case flush
}

/// What `ImageEngine.begin` says.
public enum EngineAdmission: Equatable, Sendable {
    /// All of it is in one piece, and nothing else has to be done: the ring moves it and says `finished`.
    case direct(file: Int, offset: UInt64, handle: UInt32)
    /// Orders will come, the last of them is `ended`.
    case pending
}
