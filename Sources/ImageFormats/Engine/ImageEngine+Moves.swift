// The pieces of a request, given to its ring, and the end of each; and where in the chain they are.

public import SystemPackage

extension ImageEngine {
    // MARK: moving

    func move(_ index: Int, isWrite: Bool, file: Int, offset: UInt64, skip: Int, _ byteCount: Int, change: Int) {
        let token = addMove(EngineMove(request: index, change: change))
        requests[index].outstanding &+= 1
        if isWrite { flush.isNeeded = true }
        tell(
            requests[index].client,
            .transfer(
                request: requests[index].name,
                isWrite: isWrite,
                file: file,
                offset: offset,
                skip: skip,
                byteCount: byteCount,
                token: token
            )
        )
    }

    func copyOut(_ index: Int, _ decoder: Int, _ inCluster: UInt64, _ skip: Int, _ byteCount: Int) {
        let token = addMove(EngineMove(request: index, decoder: decoder))
        decoders[decoder].pins &+= 1
        requests[index].outstanding &+= 1
        let buffer = decoders[decoder].output &+ Int(truncatingIfNeeded: inCluster)
        tell(
            requests[index].client,
            .copy(request: requests[index].name, buffer: buffer, skip: skip, byteCount: byteCount, token: token)
        )
    }

    private func addMove(_ move: EngineMove) -> UInt32 {
        if let free = freeMoves.popLast() {
            moves[free] = move
            return UInt32(truncatingIfNeeded: free)
        }
        moves.append(move)
        return UInt32(truncatingIfNeeded: moves.count - 1)
    }

    /// A ring has carried out an order with a token.
    /// - Parameter errno: nil if all bytes were moved.
    public func moved(_ token: UInt32, errno: Errno?) {
        let move = moves[Int(token)]
        freeMoves.append(Int(token))
        requests[move.request].outstanding &-= 1
        if requests[move.request].kind == .write { flush.isNeeded = true }
        if let errno { fail(move.request, errno) }
        if move.decoder >= 0 { decoders[move.decoder].pins &-= 1 }
        if move.change >= 0 {
            stepEnded(move.change, errno)
        } else {
            endIfDone(move.request)
        }
        goOn()
    }

    /// Ends a request of which nothing is left to do.
    func endIfDone(_ index: Int) {
        let request = requests[index]
        guard request.outstanding == 0, request.change < 0, !request.isFree else { return }
        if let position = waiting.firstIndex(of: index) {
            // More of it is to be placed; unless it failed.
            if request.errno == nil { return }
            waiting.remove(at: position)
        }
        end(index)
    }

    func end(_ index: Int) {
        tell(requests[index].client, .ended(request: requests[index].name, errno: requests[index].errno))
        release(index)
    }

    /// The change of a request has ended.
    func changeEnded(_ index: Int, _ errno: Errno?) {
        requests[index].change = -1
        if let errno { fail(index, errno) }
        if requests[index].errno != nil || rest(index).isEmpty {
            if let position = waiting.firstIndex(of: index) { waiting.remove(at: position) }
            endIfDone(index)
        }
    }

    // MARK: the chain

    /// Where the first bytes of a range of the disk are, in all layers.
    enum Location {
        case zero(count: UInt64)
        case data(offset: UInt64, count: UInt64, file: Int)
        case compressed(CompressedCluster, skip: UInt64, count: UInt64, file: Int)
        case missing(layer: Int, offset: UInt64)
        case fault(ImageFault)
    }

    func locate(_ range: DiskRange) -> Location {
        var rest = range
        for (file, layer) in layers.enumerated() {
            let size = layer.format.facts.byteCount
            // A parent may be shorter than its child.
            if rest.start >= size { return .zero(count: rest.count) }
            rest = rest.prefix(size &- rest.start)
            switch layer.format.place(rest, layer.cache) {
            case .zero(let count): return .zero(count: count)
            case .data(let offset, let count): return .data(offset: offset, count: count, file: file)
            case .compressed(let cluster, let skip, let count):
                return .compressed(cluster, skip: skip, count: count, file: file)
            case .parent(let count): rest = rest.prefix(count)
            case .metadata(let offset): return .missing(layer: file, offset: offset)
            case .fault(let fault): return .fault(fault)
            }
        }
        return .zero(count: rest.count)
    }
}
