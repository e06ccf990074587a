// What is written to give a VHD more sectors, in which order.

extension VHDFormat {
    /// Kinds of a plan's notes.
    private enum Kind {
        /// `offset` is a block, `count` the first sector of its new place.
        static let allocation: UInt8 = 1
        /// `offset` is a block all of whose sectors are present afterwards.
        static let fullBlock: UInt8 = 2
        /// The footer is written at byte `offset`.
        static let footer: UInt8 = 3
        static let batmap: UInt8 = 4
        static let upkeep: UInt8 = 5
    }

    public func plan(
        _ change: ImageChange,
        _ range: DiskRange,
        _ cache: MetadataCache,
        _ plan: inout ImagePlan
    ) -> PlanOutcome {
        let outcome = planned(change, range, cache, &plan)
        // Steps up to a page that is missing are planned again.
        if case .metadata = outcome { plan.removeAll() }
        return outcome
    }

    private func planned(
        _ change: ImageChange,
        _ range: DiskRange,
        _ cache: MetadataCache,
        _ plan: inout ImagePlan
    ) -> PlanOutcome {
        guard let sparse else {
            VHDFormat.put(change, skip: 0, range.count, at: range.start, &plan)
            return .planned(count: range.count)
        }
        let (block, inBlock, count) = sparse.locate(range)
        if let start = sparse.map.start(of: block) {
            return changeBlock(block, start, change, inBlock, count, cache, &plan)
        }
        // What has no block reads as zeros already; a parent's whole block is hidden behind an empty one of our own.
        let isWhole = inBlock == 0 && count == sparse.layout.blockSize
        if change != .write, !isDifferencing || (change == .discard && !isWhole) { return .planned(count: count) }
        return addBlock(block, change, inBlock, count, cache, &plan)
    }

    /// Puts the request's bytes, or zeros, to a place of the file.
    private static func put(
        _ change: ImageChange,
        skip: UInt64,
        _ count: UInt64,
        at offset: UInt64,
        _ plan: inout ImagePlan
    ) {
        switch change {
        case .write: plan.steps.append(.guest(skip: skip, count: count, offset: offset))
        case .zero: plan.steps.append(.zeroes(offset: offset, count: count))
        case .discard: plan.steps.append(.punch(offset: offset, count: count))
        }
    }

    // MARK: A block that has a place

    private func changeBlock(
        _ block: Int,
        _ start: UInt64,
        _ change: ImageChange,
        _ inBlock: UInt64,
        _ count: UInt64,
        _ cache: MetadataCache,
        _ plan: inout ImagePlan
    ) -> PlanOutcome {
        guard let sparse else { return .planned(count: count) }
        let data = (start + sparse.layout.bitmapSectors) * 512
        if sparse.full[block] {
            VHDFormat.put(change, skip: 0, count, at: data + inBlock, &plan)
            return .planned(count: count)
        }
        if change != .write, !isDifferencing || change == .discard {
            return clearPresent(start, change, inBlock, count, cache, &plan)
        }
        VHDFormat.put(change, skip: 0, count, at: data + inBlock, &plan)
        // What was seen there before must not be lost to bytes that are not durable: a parent's sectors, or zeros in
        // space that may hold something else.
        plan.steps.append(isDifferencing || !sparse.blank[block] ? .flush : .order)
        let sectors = inBlock / 512..<(inBlock + count + 511) / 512
        if let missing = sparse.setBits(sectors, of: start, cache, &plan) { return .metadata(offset: missing) }
        if sparse.isFull(start, with: sectors, cache) {
            plan.notes.append(ImagePlan.Note(kind: Kind.fullBlock, offset: UInt64(block), count: 0))
        }
        return .planned(count: count)
    }

    /// Zeros where the image has sectors of its own. Absent ones read as zeros, or may be left alone.
    private func clearPresent(
        _ start: UInt64,
        _ change: ImageChange,
        _ inBlock: UInt64,
        _ count: UInt64,
        _ cache: MetadataCache,
        _ plan: inout ImagePlan
    ) -> PlanOutcome {
        guard let sparse else { return .planned(count: count) }
        // A discarded block of a differencing image must hide the parent's sectors too.
        let isWhole = inBlock == 0 && count == sparse.layout.blockSize
        if isDifferencing, isWhole { return hideParent(start, count, cache, &plan) }
        let data = (start + sparse.layout.bitmapSectors) * 512
        var next = inBlock
        while next < inBlock + count {
            switch sparse.run(start, next, inBlock + count - next, cache) {
            case .missing(let offset): return .metadata(offset: offset)
            case .present(let bytes):
                VHDFormat.put(change, skip: next - inBlock, bytes, at: data + next, &plan)
                next += bytes
            case .absent(let bytes): next += bytes
            }
        }
        return .planned(count: count)
    }

    private func hideParent(
        _ start: UInt64,
        _ count: UInt64,
        _ cache: MetadataCache,
        _ plan: inout ImagePlan
    ) -> PlanOutcome {
        guard let sparse else { return .planned(count: count) }
        plan.steps.append(.punch(offset: (start + sparse.layout.bitmapSectors) * 512, count: count))
        plan.steps.append(.flush)
        let missing = sparse.setBits(0..<sparse.layout.sectorsPerBlock, of: start, cache, &plan)
        return missing.map { .metadata(offset: $0) } ?? .planned(count: count)
    }

    // MARK: A new block

    private func addBlock(
        _ block: Int,
        _ change: ImageChange,
        _ inBlock: UInt64,
        _ count: UInt64,
        _ cache: MetadataCache,
        _ plan: inout ImagePlan
    ) -> PlanOutcome {
        guard let sparse else { return .planned(count: count) }
        // The footer that is being written may be where the block will be.
        if isUpkeepRunning { return .wait }
        let layout = sparse.layout
        guard let start = sparse.map.nextPlace() else {
            return .refused(ImageFault(.limit, "no block can be behind sector 2^32: a VHD has 2 TiB at most"))
        }
        let (bitmap, data) = (start * 512, (start + layout.bitmapSectors) * 512)
        let end = data + layout.blockSize
        let entry = layout.tableOffset + UInt64(block) * 4
        if let missing = VHDFormat.missing(cache, [entry & ~7, bitmap, bitmap + layout.bitmapSectors * 512 - 8]) {
            return .metadata(offset: missing)
        }
        let footerPlace = footerPlace(behind: end)
        if let footerPlace, cache.u64(at: footerPlace) == nil { return .metadata(offset: footerPlace) }
        // Room for all that is small first: in a full file system this fails before anything has changed.
        plan.steps.append(.zeroes(offset: bitmap, count: layout.bitmapSectors * 512))
        if let footerPlace, footerPlace + 512 > roomEnd { plan.steps.append(.zeroes(offset: footerPlace, count: 512)) }
        // Old bytes of a tail that a crash or a failure left behind.
        let stale = min(end, sparse.zeroFrom)
        if stale > data { plan.steps.append(.zeroes(offset: data, count: stale - data)) }
        plan.steps.append(.order)
        if change == .write {
            plan.steps.append(.guest(skip: 0, count: count, offset: data + inBlock))
            plan.steps.append(.order)
        }
        sparse.writeBits(inBlock / 512..<(inBlock + count + 511) / 512, of: start, &plan)
        if let footerPlace { planFooter(footerPlace, &plan) }
        plan.steps.append(.flush)
        plan.steps.append(.store(value: start, width: 4, offset: entry))
        reserve(block, start, isFull: count == layout.blockSize, &plan)
        return .planned(count: count)
    }

    private func reserve(_ block: Int, _ start: UInt64, isFull: Bool, _ plan: inout ImagePlan) {
        plan.notes.append(ImagePlan.Note(kind: Kind.allocation, offset: UInt64(block), count: start))
        if isFull { plan.notes.append(ImagePlan.Note(kind: Kind.fullBlock, offset: UInt64(block), count: 0)) }
        sparse?.map.reserve(start)
        allocationCount += 1
    }

    private static func again(_ missing: UInt64, _ plan: inout ImagePlan) -> PlanOutcome {
        plan.removeAll()
        return .metadata(offset: missing)
    }

    private static func missing(_ cache: MetadataCache, _ offsets: [UInt64]) -> UInt64? {
        for offset in offsets where cache.u64(at: offset) == nil { return offset }
        return nil
    }

    /// The bits of a bitmap's word that stand for sectors of the range.
    static func bits(_ sectors: Range<UInt64>, inWord word: UInt64) -> UInt64 {
        let first = max(sectors.lowerBound, word * 64)
        let end = min(sectors.upperBound, word * 64 + 64)
        guard first < end else { return 0 }
        let ones: UInt64 = end - first == 64 ? .max : (1 << (end - first)) - 1
        return ones << (word * 64 + 64 - end)
    }

    /// Where the footer has to be written if the file's data reaches to `end`; nil: it is there already.
    private func footerPlace(behind end: UInt64) -> UInt64? {
        let present = fileEnd < 512 ? 0 : (fileEnd - 1) / 512 * 512
        return end <= present && !isFooterDue ? nil : max(end, present)
    }

    private func planFooter(_ place: UInt64, _ plan: inout ImagePlan) {
        let bytes = footer.bytes
        for word in 0..<VHDFooter.byteCount / 8 {
            let value = bytes[word * 8..<word * 8 + 8].reduce(0) { $0 << 8 | UInt64($1) }
            plan.steps.append(.store(value: value, width: 8, offset: place + UInt64(word) * 8))
        }
        plan.notes.append(ImagePlan.Note(kind: Kind.footer, offset: place, count: 0))
        fileEnd = max(fileEnd, place + 512)
    }

    // MARK: The end of a plan

    public func ended(_ plan: borrowing ImagePlan, _ end: PlanEnd) {
        var isUpkeep = false
        for note in plan.notes {
            switch note.kind {
            case Kind.allocation: endedAllocation(Int(note.offset), note.count, end)
            case Kind.fullBlock:
                guard end == .committed, sparse?.map.start(of: Int(note.offset)) != nil else { continue }
                sparse?.full[Int(note.offset)] = true
                if sparse?.batmap != nil { sparse?.isBatmapDue = true }
            case Kind.footer:
                isFooterDue = end != .committed
                if end == .committed { roomEnd = max(roomEnd, note.offset + 512) }
            case Kind.batmap where end == .committed:
                sparse?.isBatmapDue = false
                sparse?.batmap?.isTrusted = true
            case Kind.upkeep: isUpkeep = true
            default: break
            }
        }
        if isUpkeep { isUpkeepRunning = false }
        if end == .committed { upkeepFailures = 0 } else if isUpkeep { upkeepFailures += 1 }
    }

    private func endedAllocation(_ block: Int, _ start: UInt64, _ end: PlanEnd) {
        guard let layout = sparse?.layout else { return }
        allocationCount -= 1
        if end == .committed {
            sparse?.map.publish(block, start)
            sparse?.full[block] = false
            sparse?.blank[block] = true
            return
        }
        // Its place is not blank any more, and the footer behind it neither.
        let stale = (start + layout.blockSectors + 1) * 512
        if let zeroFrom = sparse?.zeroFrom, zeroFrom < stale { sparse?.zeroFrom = stale }
        if end == .failed { sparse?.map.giveBack(start) }
    }

    // MARK: Upkeep

    public func planUpkeep(isClosing: Bool, _ cache: MetadataCache, _ plan: inout ImagePlan) -> PlanOutcome {
        guard isWritable, let sparse, upkeepFailures < 3 else { return .nothing }
        if isFooterDue, allocationCount == 0 {
            guard let place = footerPlace(behind: sparse.map.endSector * 512) else { return .nothing }
            if cache.u64(at: place) == nil { return .metadata(offset: place) }
            planFooter(place, &plan)
            plan.notes.append(ImagePlan.Note(kind: Kind.upkeep, offset: 0, count: 0))
            isUpkeepRunning = true
            return .planned(count: 0)
        }
        if isClosing, sparse.isBatmapDue, let batmap = sparse.batmap {
            return planBatmap(batmap, sparse, cache, &plan)
        }
        return .nothing
    }

    /// The map first and its sum behind it, in one write where they are in one page.
    private func planBatmap(
        _ batmap: VHDBatmap,
        _ sparse: Sparse,
        _ cache: MetadataCache,
        _ plan: inout ImagePlan
    ) -> PlanOutcome {
        var new = batmap
        new.map.replaceSubrange(0..<sparse.full.bytes.count, with: sparse.full.bytes)
        new.seal(footer.currentSize)
        let head = sparse.layout.tableOffset + sparse.layout.tableByteCount
        // Bits of the bitmaps that it vouches for are durable before it is written.
        plan.steps.append(.flush)
        for word in 0..<(sparse.full.bytes.count + 7) / 8 {
            let value = new.map[word * 8..<word * 8 + 8].reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
            let offset = batmap.mapOffset + UInt64(word) * 8
            guard let old = cache.u64(at: offset) else { return VHDFormat.again(offset, &plan) }
            if old != value { plan.steps.append(.store(value: value, width: 8, offset: offset)) }
        }
        if cache.u64(at: head + 24) == nil { return VHDFormat.again(head + 24, &plan) }
        plan.steps.append(.store(value: UInt64(new.checksum), width: 4, offset: head + 24))
        for kind in [Kind.batmap, Kind.upkeep] { plan.notes.append(ImagePlan.Note(kind: kind, offset: 0, count: 0)) }
        isUpkeepRunning = true
        return .planned(count: 0)
    }
}

extension VHDFormat.Sparse {
    /// Plans the whole bitmap of a new block.
    func writeBits(_ sectors: Range<UInt64>, of start: UInt64, _ plan: inout ImagePlan) {
        for word in 0..<layout.bitmapSectors * 64 {
            let bits = VHDFormat.bits(sectors, inWord: word)
            // Where there was never anything it is zeros already.
            if bits == 0, start * 512 >= zeroFrom { continue }
            plan.steps.append(.store(value: bits, width: 8, offset: start * 512 + word * 8))
        }
    }

    /// Plans the stores that set the bits of sectors.
    /// - Returns: a page that is needed first.
    func setBits(
        _ sectors: Range<UInt64>,
        of start: UInt64,
        _ cache: MetadataCache,
        _ plan: inout ImagePlan
    ) -> UInt64? {
        for word in sectors.lowerBound / 64...(sectors.upperBound - 1) / 64 {
            let offset = start * 512 + word * 8
            guard let old = cache.u64(at: offset) else { return offset }
            let new = old | VHDFormat.bits(sectors, inWord: word)
            if new != old { plan.steps.append(.store(value: new, width: 8, offset: offset)) }
        }
        return nil
    }

    /// Whether all of a block's sectors are present once those in the range are.
    func isFull(_ start: UInt64, with sectors: Range<UInt64>, _ cache: MetadataCache) -> Bool {
        for word in 0..<(layout.sectorsPerBlock + 63) / 64 {
            let wanted = VHDFormat.bits(0..<layout.sectorsPerBlock, inWord: word)
            let bits = VHDFormat.bits(sectors, inWord: word)
            if bits & wanted == wanted { continue }
            guard let old = cache.u64(at: start * 512 + word * 8) else { return false }
            if (old | bits) & wanted != wanted { return false }
        }
        return true
    }
}
