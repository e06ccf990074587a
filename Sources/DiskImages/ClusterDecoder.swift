// Compressed clusters, decoded: for helper threads, since it takes its time.

internal import CCodecs
internal import ImageFormats
internal import SharedRing

/// The libraries' side of an engine's `decompress`.
enum ClusterDecoder {
    /// Decodes from `input` to `output` of the same pages, which nobody else touches meanwhile.
    /// - Returns: 0, or a negated `errno`: `EIO` for a stream that does not give exactly the cluster.
    static func decode(_ cluster: CompressedCluster, in pages: PrivatePages, input: Int, byteCount: Int, output: Int)
        -> Int32
    {
        // SAFETY: both ranges are checked by `unsafeAddress` and live as long as the pages, which the caller holds.
        let source = unsafe pages.unsafeAddress(at: input, count: byteCount)
        let target = unsafe pages.unsafeAddress(at: output, count: cluster.clusterBytes)
        return switch cluster.method {
        case .deflate: unsafe codec_inflate(source, byteCount, target, cluster.clusterBytes)
        case .zstd: unsafe codec_zstd(source, byteCount, target, cluster.clusterBytes)
        }
    }
}
