// Bytes that the engine moves itself: copy-on-write, copied tables, compressed clusters.

internal import SharedRing
internal import SystemPackage

extension ImageEngine {
    /// Begins to copy for a change; its end is a step's end.
    func beginCopy(_ change: Int, isKeep: Bool, from source: UInt64, to target: UInt64, _ count: UInt64) {
        changes[change].outstanding &+= 1
        let copy = EngineCopy(
            change: change,
            isKeep: isKeep,
            source: source,
            target: target,
            left: count,
            isActive: true
        )
        let index: Int
        if let free = freeCopies.popLast() {
            copies[free] = copy
            index = free
        } else {
            copies.append(copy)
            index = copies.count - 1
        }
        goOn(copy: index)
    }

    /// Moves the next piece of a copy.
    func goOn(copy index: Int) {
        copies[index].wait = .nothing
        let left = copies[index].left
        if left == 0 { return copyEnded(index, nil) }
        if copies[index].buffer < 0 {
            guard let buffer = freeCopyBuffers.popLast() else {
                copiesWithoutBuffer.append(index)
                return
            }
            copies[index].buffer = buffer
        }
        let piece = min(left, UInt64(ImageEngine.chunkBytes))
        let source = copies[index].source
        if !copies[index].isKeep { return readPiece(index, file: 0, source, piece) }
        switch locate(DiskRange(start: source, count: piece)) {
        case .zero(let count): writePiece(index, count, from: 0)
        case .data(let offset, let count, let file): readPiece(index, file: file, offset, count)
        case .compressed(let cluster, let skip, let count, let file):
            switch decode(file, cluster) {
            case .later: copies[index].wait = .decoder
            case .failed(let errno): copyEnded(index, errno)
            case .ready(let decoder):
                pages.copy(
                    from: pages,
                    at: decoders[decoder].output &+ Int(truncatingIfNeeded: skip),
                    count: Int(truncatingIfNeeded: count),
                    to: copies[index].buffer
                )
                writePiece(index, count, from: copies[index].buffer)
            }
        case .missing(let layer, let offset): copies[index].wait = load(layer, offset)
        case .fault(let fault): copyEnded(index, fault.errno)
        }
    }

    private func readPiece(_ index: Int, file: Int, _ offset: UInt64, _ count: UInt64) {
        copies[index].piece = Int(truncatingIfNeeded: count)
        start(
            .read,
            file: file,
            offset: offset,
            byteCount: copies[index].piece,
            in: pages,
            at: copies[index].buffer,
            for: .copy(index)
        )
    }

    private func writePiece(_ index: Int, _ count: UInt64, from buffer: Int) {
        copies[index].piece = Int(truncatingIfNeeded: count)
        start(
            .write,
            file: 0,
            offset: copies[index].target,
            byteCount: copies[index].piece,
            in: pages,
            at: buffer,
            for: .copy(index)
        )
    }

    /// A read or a write of a copy has ended.
    func copyMoved(_ index: Int, _ kind: EngineOperation.Kind, _ errno: Errno?) {
        if let errno { return copyEnded(index, errno) }
        if kind == .read { return writePiece(index, UInt64(copies[index].piece), from: copies[index].buffer) }
        let piece = UInt64(copies[index].piece)
        copies[index].source &+= piece
        copies[index].target &+= piece
        copies[index].left &-= piece
        goOn(copy: index)
    }

    /// Copies and rounds that found no room for a page, or no decoder.
    func retryStalled() {
        for index in copies.indices where copies[index].isActive {
            if copies[index].wait == .space || copies[index].wait == .decoder { goOn(copy: index) }
        }
        for index in changes.indices where changes[index].isActive {
            guard let number = changes[index].awaitedPage, leaf.cache.find(number) == nil else { continue }
            beginRound(index)
        }
    }

    func copyEnded(_ index: Int, _ errno: Errno?) {
        let change = copies[index].change
        if copies[index].buffer >= 0 { freeCopyBuffers.append(copies[index].buffer) }
        copies[index] = EngineCopy()
        freeCopies.append(index)
        if !freeCopyBuffers.isEmpty, !copiesWithoutBuffer.isEmpty { goOn(copy: copiesWithoutBuffer.removeFirst()) }
        stepEnded(change, errno)
    }

    // MARK: compressed clusters

    enum Decoding {
        case ready(Int)
        case later
        case failed(Errno)
    }

    /// A cluster's bytes, decoded: they are there, or on their way, or wrong.
    func decode(_ file: Int, _ cluster: CompressedCluster) -> Decoding {
        for index in decoders.indices where decoders[index].file == file && decoders[index].cluster == cluster {
            switch decoders[index].state {
            case .ready:
                decoderClock &+= 1
                decoders[index].lastUse = decoderClock
                return .ready(index)
            case .failed(let errno):
                decoders[index].cluster = nil
                decoders[index].state = .empty
                return .failed(errno)
            case .reading, .decoding: return .later
            case .empty: break
            }
        }
        let free = decoders.indices.filter {
            decoders[$0].pins == 0 && decoders[$0].state != .reading && decoders[$0].state != .decoding
        }
        guard let index = free.min(by: { decoders[$0].lastUse < decoders[$1].lastUse }) else { return .later }
        decoders[index].state = .reading
        decoders[index].file = file
        decoders[index].cluster = cluster
        let mask = UInt64(alignment - 1)
        let first = cluster.offset & ~mask
        let last = (cluster.offset &+ UInt64(cluster.byteCount) &+ mask) & ~mask
        start(
            .read,
            file: file,
            offset: first,
            byteCount: Int(truncatingIfNeeded: last &- first),
            in: pages,
            at: decoders[index].input,
            for: .decoder(index)
        )
        return .later
    }

    func decoderMoved(_ index: Int, _ kind: EngineOperation.Kind, _ errno: Errno?) {
        guard let cluster = decoders[index].cluster else { return }
        if let errno {
            decoders[index].state = .failed(errno)
        } else if kind == .read {
            decoders[index].state = .decoding
            let skip = Int(truncatingIfNeeded: cluster.offset & UInt64(alignment - 1))
            start(
                .decompress(cluster, output: decoders[index].output),
                file: decoders[index].file,
                offset: 0,
                byteCount: cluster.byteCount,
                in: pages,
                at: decoders[index].input &+ skip,
                for: .decoder(index)
            )
            return
        } else {
            decoders[index].state = .ready
            decoderClock &+= 1
            decoders[index].lastUse = decoderClock
        }
    }
}
