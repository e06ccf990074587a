// An engine whose operations are done at once, by the thread that asks: for commands on images that no guest uses.

internal import CLinux
internal import HostIO
public import ImageFormats
public import SharedRing
public import SystemPackage

/// A chain, read and written by whoever waits.
public final class WaitingEngine {
    public let chain: ImageChain
    private let engine: ImageEngine
    private let client: Int
    private var answer: Errno??
    private var buffer: (pages: PrivatePages, offset: Int)?
    private var runs = IORuns()

    /// - Parameter cacheBytes: of metadata in memory, for each file.
    public init(_ chain: ImageChain, cacheBytes: Int = 4 << 20) throws(ImageFailure) {
        self.chain = chain
        engine = try chain.makeEngine(cacheBytes: cacheBytes)
        client = engine.addClient()
    }

    /// Reads into private pages at `offset`.
    public func read(_ range: DiskRange, into pages: PrivatePages, at offset: Int) throws(Errno) {
        try run(.read, range, (pages, offset))
    }

    public func write(_ range: DiskRange, from pages: PrivatePages, at offset: Int) throws(Errno) {
        try run(.write, range, (pages, offset))
    }

    public func discard(_ range: DiskRange) throws(Errno) { try run(.discard, range, nil) }
    public func flush() throws(Errno) { try run(.flush, DiskRange(start: 0, count: 0), nil) }

    /// Leaves the image as it should be left: all is durable, nothing is claimed.
    public func close() throws(Errno) {
        engine.close()
        while work() {}
        if !engine.isClosed { throw .ioError }
    }

    private func run(
        _ kind: EngineRequestKind,
        _ range: DiskRange,
        _ buffer: (pages: PrivatePages, offset: Int)?
    ) throws(Errno) {
        if range.end > chain.byteCount { throw .invalidArgument }
        self.buffer = buffer
        answer = nil
        switch engine.begin(client: client, name: 0, kind, range) {
        case .pending: break
        case .direct(let file, let offset, let handle):
            let errno = move(kind == .write, file, offset, 0, Int(truncatingIfNeeded: range.count))
            engine.finished(handle, wasWrite: kind == .write)
            answer = .some(errno)
        }
        while work() {}
        guard let answer else { throw .ioError }
        if let errno = answer { throw errno }
    }

    /// Does one thing.
    /// - Returns: false if there is nothing to do.
    private func work() -> Bool {
        if let order = engine.takeOrder(for: client) {
            carryOut(order)
            return true
        }
        if let operation = engine.takeOperation() {
            engine.completed(operation.token, result: perform(operation))
            return true
        }
        guard engine.wantsTurn else { return false }
        engine.goOn()
        return true
    }

    private func carryOut(_ order: EngineOrder) {
        switch order {
        case .transfer(_, let isWrite, let file, let offset, let skip, let byteCount, let token):
            engine.moved(token, errno: move(isWrite, file, offset, skip, byteCount))
        case .zero(_, let skip, let byteCount):
            if let buffer { buffer.pages.zero(at: buffer.offset + skip, count: byteCount) }
        case .copy(_, let place, let skip, let byteCount, let token):
            if let buffer {
                buffer.pages.copy(from: engine.pages, at: place, count: byteCount, to: buffer.offset + skip)
            }
            engine.moved(token, errno: nil)
        case .ended(_, let errno): answer = .some(errno)
        }
    }

    /// Moves bytes of the request; a read that is short because the file ends gives zeroes.
    private func move(_ isWrite: Bool, _ file: Int, _ offset: UInt64, _ skip: Int, _ byteCount: Int) -> Errno? {
        guard let buffer else { return .invalidArgument }
        var done = 0
        while done < byteCount {
            runs.removeAll()
            runs.append(offset: buffer.offset + skip + done, byteCount: byteCount - done)
            let open = chain.images[file].file
            let place = offset &+ UInt64(done)
            let moved =
                isWrite
                ? open.writeNow(at: place, from: buffer.pages, runs: runs)
                : open.readNow(at: place, into: buffer.pages, runs: runs)
            if moved < 0 {
                if Errno(rawValue: -moved) == .interrupted { continue }
                return Errno(rawValue: -moved)
            }
            done += Int(moved)
            if moved == 0 || moved & 511 != 0 {
                if isWrite { return .ioError }
                buffer.pages.zero(at: buffer.offset + skip + done, count: byteCount - done)
                return nil
            }
        }
        return nil
    }

    private func perform(_ operation: EngineOperation) -> Int32 {
        let file = chain.images[operation.file].file
        switch operation.kind {
        case .read, .write:
            runs.removeAll()
            runs.append(offset: operation.buffer, byteCount: operation.byteCount)
            return operation.kind == .read
                ? file.readNow(at: operation.offset, into: operation.pages, runs: runs)
                : file.writeNow(at: operation.offset, from: operation.pages, runs: runs)
        case .flush: return file.synchronizeNow()
        case .punch:
            return 0 - linux_punch_hole(file.descriptor, Int64(clamping: operation.offset), Int64(operation.byteCount))
        case .decompress(let cluster, let output):
            return ClusterDecoder.decode(
                cluster,
                in: operation.pages,
                input: operation.buffer,
                byteCount: operation.byteCount,
                output: output
            )
        }
    }
}
