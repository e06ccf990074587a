// What is measured: the six loads of the rig's block-bench, and what came of one.

internal import CBench

/// One kind of load.
struct BlockWorkload: Sendable {
    let name: String
    let bytes: Int
    let depth: Int
    let isRandom: Bool
    let isWriting: Bool

    static let all = [
        BlockWorkload(name: "randread 4k depth 32", bytes: 4096, depth: 32, isRandom: true, isWriting: false),
        BlockWorkload(name: "randwrite 4k depth 32", bytes: 4096, depth: 32, isRandom: true, isWriting: true),
        BlockWorkload(name: "randread 4k depth 1", bytes: 4096, depth: 1, isRandom: true, isWriting: false),
        BlockWorkload(name: "randwrite 4k depth 1", bytes: 4096, depth: 1, isRandom: true, isWriting: true),
        BlockWorkload(name: "read 128k depth 8", bytes: 131_072, depth: 8, isRandom: false, isWriting: false),
        BlockWorkload(name: "write 128k depth 8", bytes: 131_072, depth: 8, isRandom: false, isWriting: true),
    ]

    var segments: Int { bytes / 4096 }
}

/// What one run of a load showed.
struct BlockFigures: Sendable {
    var requests: Int
    var nanoseconds: UInt64
    /// Latencies in nanoseconds, of the last requests.
    var samples: [UInt64]
    /// Calls of malloc in the whole process, while it ran.
    var allocations: UInt64 = 0

    var perSecond: Double { Double(requests) * 1e9 / Double(nanoseconds) }
    var perRequest: Double { Double(nanoseconds) / Double(requests) }

    /// The latency that `share` of the requests did not exceed, in microseconds.
    func latency(_ share: Double) -> Double {
        let sorted = samples.sorted()
        return Double(sorted[min(sorted.count - 1, Int(Double(sorted.count) * share))]) / 1000
    }
}

extension BlockWorkload {
    /// Latencies that are kept.
    static let sampleCount = 1 << 16

    /// The same load by a plain io_uring loop on the file: what is left of it when ring, grants and events are free.
    func runPeer(_ descriptor: CInt, byteCount: Int, nanoseconds: UInt64) throws -> BlockFigures {
        var io = bench_io()
        io.descriptor = descriptor
        io.block = UInt32(bytes)
        io.depth = UInt32(depth)
        io.byte_count = UInt64(byteCount)
        io.random = isRandom
        io.writing = isWriting
        var samples = [UInt64](repeating: 0, count: Self.sampleCount)
        let done = unsafe bench_uring(&io, nanoseconds, &samples, UInt64(samples.count))
        guard done > 0 else { throw BenchFailure("\(name): the peer's io_uring: errno \(-done)") }
        samples.removeLast(max(0, samples.count - Int(done)))
        return BlockFigures(requests: Int(done), nanoseconds: nanoseconds, samples: samples)
    }
}
