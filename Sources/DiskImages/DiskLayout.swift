// Where an image keeps a range of its disk. A layout answers where and does no I/O.

/// Where the beginning of a range of the disk is.
public enum Placement: Equatable, Sendable {
    /// Nowhere: `length` bytes that read as zeroes.
    case zero(length: UInt64)
    /// In the image file, `length` bytes at `offset`.
    case data(offset: UInt64, length: UInt64)

    /// Bytes of the range that this answers for; the caller asks again for the rest.
    public var length: UInt64 {
        switch self {
        case .zero(let length), .data(_, let length): length
        }
    }
}

/// How a format maps its disk to the bytes of its file.
public protocol DiskLayout: Sendable {
    /// Where the range is, or its first part; the answer's length is at least 1 and at most `length`.
    ///
    /// `offset` and `length` are in bytes and inside the disk.
    func place(offset: UInt64, length: UInt64) -> Placement
}

/// The layout of a raw image: the disk is the file.
public struct RawLayout: DiskLayout {
    public init() {}
    public func place(offset: UInt64, length: UInt64) -> Placement { .data(offset: offset, length: length) }
}
