// Where bytes of a disk are: the answers of the stage between order and transfer.

/// Where the first bytes of a range are, for reading. Every `count` is above 0 and at most the range's.
public enum Placement: Equatable, Sendable {
    /// They read as zeroes.
    case zero(count: UInt64)
    /// In this layer's file, one after the other. Behind the file's end there are zeroes.
    case data(offset: UInt64, count: UInt64)
    /// In a compressed cluster, behind its first `skip` bytes.
    case compressed(CompressedCluster, skip: UInt64, count: UInt64)
    /// Not in this layer: the parent's, at the same place of the disk; zeroes where there is no parent, or where it ends.
    case parent(count: UInt64)
    /// The page of metadata that holds this byte of the file is needed first.
    case metadata(offset: UInt64)
    /// The image contradicts itself here.
    case fault(ImageFault)
}

/// Where a cluster's compressed bytes are.
public struct CompressedCluster: Hashable, Sendable {
    public enum Method: UInt8, Sendable {
        /// A raw deflate stream.
        case deflate
        /// One or more zstd frames.
        case zstd
    }
    public var method: Method
    /// In the layer's file.
    public var offset: UInt64
    /// Bytes to read; the stream may end before.
    public var byteCount: Int
    /// Bytes of the cluster that comes out: exactly these, or the image is corrupt.
    public var clusterBytes: Int

    public init(method: Method, offset: UInt64, byteCount: Int, clusterBytes: Int) {
        self.method = method
        self.offset = offset
        self.byteCount = byteCount
        self.clusterBytes = clusterBytes
    }
}

/// Where the first bytes of a range would be written.
public enum WritePlacement: Equatable, Sendable {
    /// Over what is there; nothing else of the file changes.
    case inPlace(offset: UInt64, count: UInt64)
    /// A change of metadata is necessary: see `ImageFormat.plan`.
    case change
    case metadata(offset: UInt64)
    case fault(ImageFault)
}
