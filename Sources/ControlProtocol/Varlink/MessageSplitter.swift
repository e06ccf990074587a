// A byte stream, cut into NUL-terminated messages.

/// Cuts a stream into Varlink messages: UTF-8 JSON objects, each closed by a NUL byte (varlink.org, "Message Format").
///
/// Holds at most `limit` bytes that were not taken yet, whatever the other end sends.
public struct MessageSplitter: Sendable {
    /// More bytes are waiting than this connection may have.
    public struct MessageTooLong: Error, Equatable, Sendable { public let limit: Int }

    public let limit: Int
    private var bytes: [UInt8] = []
    /// Where the next message begins.
    private var start = 0
    /// Bytes before this are known to hold no NUL after `start`.
    private var scanned = 0

    /// - Parameter limit: bytes that may wait here, the closing NUL included.
    public init(limit: Int) { self.limit = limit }

    /// How many bytes wait to be taken.
    public var waiting: Int { bytes.count - start }

    /// Adds what arrived. The caller takes all complete messages before adding more.
    public mutating func append(_ arrived: some Collection<UInt8>) throws(MessageTooLong) {
        guard arrived.count <= limit - waiting else { throw MessageTooLong(limit: limit) }
        if start > 0 {
            bytes.removeFirst(start)
            scanned -= start
            start = 0
        }
        bytes.append(contentsOf: arrived)
    }

    /// The next complete message without its NUL, or nil when more bytes are needed.
    public mutating func next() -> [UInt8]? {
        guard let end = bytes[scanned...].firstIndex(of: 0) else {
            scanned = bytes.count
            return nil
        }
        defer {
            start = end + 1
            scanned = start
        }
        return Array(bytes[start..<end])
    }
}
