// What is wrong with a VHD: vhd-util's rules in its order and words, and a few of our own.

internal import SystemPackage

/// What a check looks at, and what it forgives. The defaults are those of `vhd-util check`.
package struct VHDCheckOptions: Sendable {
    /// A missing footer at the end.
    package var forgivesFooter = false
    /// Times in the future.
    package var forgivesTimes = false
    /// Whether blocks overlap each other is looked at.
    package var comparesBlocks = true
    /// The bitmaps: whether data is where they have no sector, and whether they have all where the batmap says so.
    package var readsBitmaps = false
    /// Data behind clear bits, too, which reads all blocks.
    package var readsData = false
    package var now: VHDTime = .now

    package init() {}
}

/// One finding.
package struct VHDProblem: Hashable, Sendable {
    /// In vhd-util's words, where it has any.
    package let text: String
    /// Whether it can lose data; others are left behind by crashes and do no harm.
    package let isCorruption: Bool
    /// Whether `vhd-util check` fails for it.
    package let fails: Bool
}

/// Looks at one image's structures. Its parents are the caller's business.
package struct VHDCheck<Source: ImageSource> {
    let source: Source
    let options: VHDCheckOptions
    package private(set) var problems: [VHDProblem] = []
    package private(set) var footer: VHDFooter?
    package private(set) var header: VHDHeader?
    /// Blocks with a place, all blocks, and present sectors (if bitmaps are read).
    package private(set) var usedBlocks: UInt64 = 0
    package private(set) var totalBlocks: UInt64 = 0
    package private(set) var presentSectors: UInt64 = 0
    private var entries: [UInt32] = []
    private var isPrimaryMissing = false

    package init(_ source: Source, _ options: VHDCheckOptions = VHDCheckOptions()) throws(ImageFault) {
        self.source = source
        self.options = options
        do throws(Stop) { try run() } catch {
            if case .storage(let errno) = error { throw ImageFault(.storage(errno), "cannot be read: \(errno)") }
        }
    }

    /// Ends a check whose next step needs what was just found wrong.
    private enum Stop: Error {
        case broken
        case storage(Errno)
    }

    private mutating func add(_ text: String, isCorruption: Bool = true, fails: Bool = true) {
        // One is enough for whoever asks whether it is valid; a hostile table has a million.
        if problems.count < ImageCheckReport.findingLimit {
            problems.append(VHDProblem(text: text, isCorruption: isCorruption, fails: fails))
        }
    }

    private func bytes(_ offset: UInt64, _ count: UInt64) throws(Stop) -> [UInt8]? {
        guard let range = DiskRange(checking: offset, count: count), range.end <= source.byteCount else { return nil }
        do throws(Errno) { return try source.read(at: offset, count: Int(count)) } catch { throw .storage(error) }
    }

    private mutating func run() throws(Stop) {
        try checkFooters()
        guard let footer else { return }
        guard footer.kind.isSparse else {
            if footer.currentSize > source.byteCount - 511 { add("the disk is larger than the file") }
            return
        }
        let header = try checkHeader(footer)
        self.header = header
        checkParentFields(footer, header)
        let layout = VHDLayout(header)
        let batmap = try checkBatmap(footer, layout)
        try checkTable(footer, header, layout, batmap)
        try checkLocators(footer, header)
        if options.readsBitmaps || options.readsData { try checkBitmaps(layout, batmap) }
    }

    // MARK: Footers

    private mutating func checkFooters() throws(Stop) {
        let size = source.byteCount
        guard size >= 511 else { return add("error reading primary footer: a file of \(size) bytes is no VHD") }
        let count: UInt64 = size % 512 == 511 ? 511 : min(512, size)
        let primary = VHDFooter(unchecked: try bytes(size - count, count) ?? [])
        if let fault = fault(of: primary) ?? oddity(of: primary) {
            isPrimaryMissing = self.fault(of: primary) != nil
            // As after a crash: the copy has it all.
            add("primary footer invalid: \(fault)", isCorruption: false, fails: !options.forgivesFooter)
        }
        if !isPrimaryMissing, primary.kind == .fixed {
            footer = primary
            return
        }
        let backup = VHDFooter(unchecked: try bytes(0, min(512, size)) ?? [])
        if let fault = fault(of: backup) {
            add("backup footer invalid: \(fault)")
            footer = isPrimaryMissing ? nil : primary
            return
        }
        if let oddity = oddity(of: backup) { add("backup footer invalid: \(oddity)", isCorruption: false) }
        if isPrimaryMissing, !backup.kind.isSparse { return add("primary footer missing") }
        if !isPrimaryMissing, !primary.matches(backup: backup) {
            add("primary and backup footers do not match", fails: !options.forgivesFooter)
        }
        footer = isPrimaryMissing ? backup : primary
    }

    /// Why a footer cannot be used.
    private func fault(of footer: VHDFooter) -> String? {
        if footer.isJournalled { return "invalid cookie: a resize by vhd-util did not end" }
        if footer.fields[0..<8] != VHDFooter.cookie { return "invalid cookie" }
        if !footer.hasValidChecksum { return "invalid checksum" }
        if footer.features & 2 == 0 { return "invalid 'reserved' feature" }
        if footer.features & ~3 != 0 { return "invalid extra features" }
        if footer.formatVersion != 0x10000 { return "invalid file format version" }
        if footer.isFromTapdisk, footer.creatorVersion == 1 { return "unsupported tap creator version" }
        guard let kind = VHDKind(rawValue: footer.rawKind) else { return "invalid type" }
        if !kind.isSparse, footer.dataOffset != .max { return "invalid data offset" }
        if footer.currentSize == 0 || footer.currentSize % 512 != 0 || footer.currentSize > 1 << 41 {
            return "invalid size"
        }
        return nil
    }

    /// What vhd-util complains about, and nobody's data depends on: QEMU writes too large a geometry, for one.
    private func oddity(of footer: VHDFooter) -> String? {
        if !options.forgivesTimes, isInFuture(footer.time) { return "creation time in future" }
        if footer.isFromLaterTapdisk { return "unsupported tap creator version" }
        if VHDGeometry(byteCount: footer.currentSize).packed < footer.geometry.packed { return "geometry too large" }
        if footer.saved > 1 { return "invalid 'saved' state" }
        if footer.hidden > 1 { return "invalid 'hidden' state" }
        if !footer.fields.isZero(86..<512) { return "invalid 'reserved' bits" }
        return footer.identifier.isNull ? "invalid (NULL) uuid" : nil
    }

    /// Half an hour is forgiven, for clocks that differ.
    private func isInFuture(_ time: VHDTime) -> Bool { time.unix > options.now.unix + 1800 }

    // MARK: Header

    private mutating func checkHeader(_ footer: VHDFooter) throws(Stop) -> VHDHeader {
        guard footer.dataOffset >= 512, footer.dataOffset % 512 == 0,
            let bytes = try bytes(footer.dataOffset, UInt64(VHDHeader.byteCount))
        else {
            add("error reading header: it cannot be at byte \(footer.dataOffset)")
            throw .broken
        }
        let header = VHDHeader(unchecked: bytes)
        if let fault = fault(of: header) {
            add("header is invalid: \(fault)")
            throw .broken
        }
        return header
    }

    private func fault(of header: VHDHeader) -> String? {
        if header.fields[0..<8] != VHDHeader.cookie { return "invalid cookie" }
        if header.checksum != header.computedChecksum { return "invalid checksum" }
        if header.version != 0x10000 { return "invalid header version" }
        if header.nextOffset != .max { return "invalid data offset" }
        let table = DiskRange(checking: header.tableOffset, count: UInt64(header.entryCount) * 4)
        guard header.tableOffset > 0, header.tableOffset % 512 == 0, let table,
            table.end <= source.byteCount - min(512, source.byteCount)
        else { return "invalid table offset" }
        guard header.blockSize.nonzeroBitCount == 1, (512...VHDHeader.usualBlockSize).contains(header.blockSize) else {
            return "invalid block size"
        }
        return header.fields.isZero(60..<64) && header.fields.isZero(768..<1024) ? nil : "invalid reserved bits"
    }

    private mutating func checkParentFields(_ footer: VHDFooter, _ header: VHDHeader) {
        let fault: String?
        if footer.kind == .differencing {
            let isLate = !options.forgivesTimes && isInFuture(header.parentTime)
            fault = isLate ? "parent creation time in future" : header.parentName == nil ? "invalid parent name" : nil
        } else if !header.fields.isZero(64..<576) {
            fault = "invalid non-null parent name"
        } else if !header.fields.isZero(576..<768) {
            fault = "invalid non-null parent locators"
        } else if !header.parent.isNull {
            fault = "invalid non-null parent uuid"
        } else {
            fault = header.parentTime.seconds != 0 ? "invalid non-zero parent timestamp" : nil
        }
        if let fault { add("differencing header is invalid: \(fault)") }
    }

    // MARK: Tables

    private mutating func checkTable(
        _ footer: VHDFooter,
        _ header: VHDHeader,
        _ layout: VHDLayout,
        _ batmap: VHDBatmap?
    ) throws(Stop) {
        let size = source.byteCount
        if size % 512 != 0, size % 512 != 511 {
            add("invalid file size: 0x\(String(size, radix: 16))", isCorruption: false)
        }
        let blocks = layout.blocks(ofDisk: footer.currentSize)
        totalBlocks = blocks
        guard blocks <= UInt64(header.entryCount), blocks * 4 <= VHDMap.tableLimit else {
            add("VHD size (\(blocks) blocks) exceeds BAT size (\(header.entryCount))")
            throw .broken
        }
        guard let table = try bytes(layout.tableOffset, blocks * 4) else {
            add("error reading bat")
            throw .broken
        }
        entries = (0..<Int(blocks)).map { table.bigEndian(at: $0 * 4) ?? VHDMap.unused }
        let headers = (headerEnd(footer, header, layout, batmap) + 511) / 512
        checkPlaces(layout, headers: headers, batmap)
    }

    /// Where the blocks are, between the headers and the footer.
    private mutating func checkPlaces(_ layout: VHDLayout, headers: UInt64, _ batmap: VHDBatmap?) {
        let end = (source.byteCount + 511) / 512
        let footerSector = end - min(1, end)
        let used = entries.indices.filter { entries[$0] != VHDMap.unused }
        usedBlocks = UInt64(used.count)
        var last = headers
        for block in used {
            let start = UInt64(entries[block])
            let place = "block \(block) (offset 0x\(String(start, radix: 16)))"
            if start < headers { add("\(place) clobbers headers") }
            last = max(last, start + layout.blockSectors)
            if start + layout.blockSectors > footerSector + (isPrimaryMissing ? 1 : 0) {
                add("\(place) clobbers footer")
            }
        }
        if options.comparesBlocks { compare(used, layout) }
        if last < footerSector, !isGap(last, footerSector) {
            add("\(footerSector - last) sectors in front of the footer are not used", isCorruption: false, fails: false)
        }
        for block in entries.indices where batmap?[block] == true && entries[block] == VHDMap.unused {
            add("batmap shows unallocated block \(block) full")
        }
    }

    /// Less than a block's gap is how blocks are aligned.
    private func isGap(_ last: UInt64, _ footer: UInt64) -> Bool { footer - last < 8 }

    private mutating func compare(_ used: [Int], _ layout: VHDLayout) {
        let sorted = used.sorted { entries[$0] < entries[$1] }
        for (one, other) in zip(sorted, sorted.dropFirst())
        where UInt64(entries[one]) + layout.blockSectors > UInt64(entries[other]) {
            let places = [other, one].map { "block \($0) (offset 0x\(String(entries[$0], radix: 16)))" }
            add(places.joined(separator: " clobbers "))
        }
    }

    private func headerEnd(
        _ footer: VHDFooter,
        _ header: VHDHeader,
        _ layout: VHDLayout,
        _ batmap: VHDBatmap?
    ) -> UInt64 {
        var ends = [footer.dataOffset + UInt64(VHDHeader.byteCount), layout.tableOffset + layout.tableByteCount]
        if let batmap {
            ends.append(layout.tableOffset + layout.tableByteCount + UInt64(VHDBatmap.headerByteCount))
            ends.append(batmap.mapOffset &+ UInt64(batmap.mapSectors) * 512)
        }
        ends += header.locators.map { $0.dataOffset &+ ($0.byteCount ?? 0) }.filter { $0 <= source.byteCount }
        return ends.max() ?? 0
    }

    private mutating func checkBatmap(_ footer: VHDFooter, _ layout: VHDLayout) throws(Stop) -> VHDBatmap? {
        let found: VHDBatmap?
        do throws(ImageFault) {
            found = try VHDStructures.batmap(source, footer, layout, isWritable: true)
        } catch {
            if case .storage(let errno) = error.kind { throw .storage(errno) }
            add("batmap is invalid: \(error.text)")
            return nil
        }
        if let found, !found.isTrusted {
            // Left behind by whoever did not close the image; the bitmaps are right.
            add("batmap is invalid: invalid checksum", isCorruption: false)
        }
        return found?.isTrusted == true
            ? found
            : found.map { batmap in
                var empty = batmap
                empty.map = [UInt8](repeating: 0, count: batmap.map.count)
                return empty
            }
    }

    // MARK: Locators

    private mutating func checkLocators(_ footer: VHDFooter, _ header: VHDHeader) throws(Stop) {
        guard footer.kind == .differencing else { return }
        var seen: Set<UInt32> = []
        for index in 0..<VHDHeader.locatorCount {
            let locator = header[locator: index]
            if let fault = fault(of: locator) {
                add("invalid parent locator \(index): \(fault)")
                continue
            }
            if locator.isEmpty { continue }
            if !seen.insert(locator.rawCode).inserted { add("duplicate platform code in locator \(index)") }
            guard locator.platform?.hasPath == true else { continue }
            let text = try bytes(locator.dataOffset, UInt64(locator.dataLength)) ?? []
            let paths = locator.paths(of: text)
            guard let path = paths.first else {
                add("error reading parent locator \(index)")
                continue
            }
            let names = paths.map { $0.split(separator: "/").last.map(String.init) ?? "" }
            if let name = header.parentName, !names.contains(name) {
                let file = path.split(separator: "/").last ?? ""
                add("parent locator \(index) name (\(file)) does not match header name (\(name))")
            }
        }
    }

    private func fault(of locator: VHDLocator) -> String? {
        if locator.platform == nil { return "invalid platform code" }
        if locator.isEmpty {
            let isZero = locator.dataSpace == 0 && locator.dataLength == 0 && locator.dataOffset == 0
            return isZero && locator.reserved == 0 ? nil : "non-zero locator"
        }
        if locator.dataOffset == 0 { return "invalid data offset" }
        if locator.dataSpace == 0 { return "invalid data space" }
        if locator.dataLength == 0 { return "invalid data length" }
        let limit = source.byteCount - min(512, source.byteCount)
        guard let room = locator.byteCount, room <= 65536, UInt64(locator.dataLength) <= room,
            let range = DiskRange(checking: locator.dataOffset, count: room), range.end <= limit
        else { return "invalid size" }
        return locator.reserved == 0 ? nil : "invalid reserved bits"
    }

    // MARK: Bitmaps

    private mutating func checkBitmaps(_ layout: VHDLayout, _ batmap: VHDBatmap?) throws(Stop) {
        for block in entries.indices where entries[block] != VHDMap.unused {
            let offset = UInt64(entries[block]) * 512
            guard let bytes = try bytes(offset, layout.bitmapSectors * 512) else { continue }
            let bitmap = VHDBitmap(bytes)
            var sector = 0
            while sector < Int(layout.sectorsPerBlock) {
                let run = bitmap.run(from: sector, to: Int(layout.sectorsPerBlock))
                if run.isPresent {
                    presentSectors += UInt64(run.count)
                } else {
                    if batmap?[block] == true {
                        add("batmap shows block \(block) full, and its bitmap lacks sector \(sector)")
                    }
                    if options.readsData { try checkData(block, sector, run.count, offset, layout) }
                }
                sector += run.count
            }
        }
    }

    private mutating func checkData(
        _ block: Int,
        _ sector: Int,
        _ count: Int,
        _ start: UInt64,
        _ layout: VHDLayout
    ) throws(Stop) {
        let offset = start + (layout.bitmapSectors + UInt64(sector)) * 512
        guard let data = try bytes(offset, UInt64(count) * 512) else { return }
        for index in 0..<count where data[index * 512..<index * 512 + 512].contains(where: { $0 != 0 }) {
            let place = "sector 0x\(String(sector + index, radix: 16)) of block 0x\(String(block, radix: 16))"
            add("\(place) has data where bitmap is clear")
        }
    }
}

extension VHDFormat {
    /// All that is wrong with an image's own structures, bitmaps included.
    public static func check(_ source: some ImageSource) throws(ImageFault) -> ImageCheckReport {
        var options = VHDCheckOptions()
        options.readsBitmaps = true
        let check = try VHDCheck(source, options)
        var report = ImageCheckReport()
        for problem in check.problems { report.add(problem.isCorruption ? .corruption : .leak, problem.text) }
        report.allocatedUnits = check.usedBlocks
        report.totalUnits = check.totalBlocks
        return report
    }
}
