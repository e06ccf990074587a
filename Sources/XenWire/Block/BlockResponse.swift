// The answer to a block request.

/// A response (blkif.h, `struct blkif_response`).
public struct BlockResponse: Hashable, Sendable {
    public let id: UInt64
    public let operation: BlockOperation
    public let status: BlockStatus

    @inlinable
    public init(id: UInt64, operation: BlockOperation, status: BlockStatus) {
        self.id = id
        self.operation = operation
        self.status = status
    }

    /// The answer to a validated request.
    @inlinable
    public init(to request: BlockRequest, _ status: BlockStatus) {
        self.init(id: request.id, operation: request.operation, status: status)
    }

    /// The answer to a malformed request.
    @inlinable
    public init<Bytes: WireBytes>(to raw: RawBlockRequest<Bytes>, _ status: BlockStatus) {
        self.init(id: raw.id, operation: raw.answeredOperation, status: status)
    }

    /// All bytes of the response, padding included: `id` at 0, `operation` at 8, `status` at 10. The first
    /// `BlockABI.responseSize` of them go onto the ring.
    @inlinable public var words: WireWords {
        WireWords(low: id, high: UInt64(operation.rawValue) | UInt64(status.wireValue) &<< 16)
    }

    /// Writes all `abi.responseSize` bytes: no byte of what was there before goes out (XSA-216).
    @inlinable
    public func encode(into bytes: some WritableWireBytes, abi: BlockABI) {
        bytes.set64(words.low, at: 0)
        bytes.set32(UInt32(truncatingIfNeeded: words.high), at: 8)
        if abi.responseSize == 16 { bytes.set32(0, at: 12) }
    }

    /// Reads a response, as the frontend does.
    /// - Returns: nil if the status is not one of the header's.
    public init?(decoding bytes: some WireBytes) {
        guard let status = BlockStatus(rawValue: Int16(bitPattern: bytes.u16(10))) else { return nil }
        self.init(id: bytes.u64(0), operation: BlockOperation(rawValue: bytes.u8(8)), status: status)
    }
}
