// vhd-util read: headers, tables and data, as they are in the file.

import DiskImages
import Glibc
import ImageFormats
import SystemPackage

extension VHDUtility {
    static let read = Command(
        name: "read",
        options: "n:pt:b:Bm:i:e:aj:d:c:r:R:xCh",
        usage: """
            options:
            -h          help
            -n          name
            -p          print VHD headers
            -t sec      translate logical sector to VHD location
            -b blk      print bat entry
            -B          print entire bat as a bitmap
            -m blk      print bitmap
            -i sec      test bitmap for logical sector
            -e sec      output extent list of allocated logical sectors
            -a          print batmap
            -j blk      test batmap for block
            -d blk      print data
            -c num      num units
            -r sec      read num sectors at sec
            -R byte     read num bytes at byte
            -x          print in hex
            """
    ) { utility, arguments in
        let name = try arguments.name()
        let file: VHDFile
        do { file = try VHDFile.open(name, [.journalled]) } catch let failure as VHDFailure {
            utility.print("Failed to open \(name): \(-failure.errno.rawValue)")
            throw failure
        }
        let reading = VHDReading(utility, file, arguments)
        if arguments.has("p") { reading.headers() }
        if file.structures.sparse == nil, !arguments.has("r"), !arguments.has("R") {
            return arguments.has("p") ? 0 : EINVAL
        }
        try reading.tables()
        try reading.data()
        return 0
    }
}

/// One call of `vhd-util read`.
struct VHDReading {
    private let utility: VHDUtility
    private let file: VHDFile
    private let arguments: VHDArguments
    private let isHexadecimal: Bool
    private let count: UInt64

    init(_ utility: VHDUtility, _ file: VHDFile, _ arguments: VHDArguments) {
        self.utility = utility
        self.file = file
        self.arguments = arguments
        isHexadecimal = arguments.has("x")
        count = arguments.number("c") ?? 1
    }

    /// `%#x` or `%u`.
    private func text(_ number: some BinaryInteger) -> String {
        isHexadecimal && number != 0 ? "0x\(String(number, radix: 16))" : "\(number)"
    }

    private func padded(_ number: UInt32) -> String {
        let digits = String(number, radix: 16)
        return "0x" + String(repeating: "0", count: 8 - digits.utf8.count) + digits
    }

    private func print(_ name: String, _ value: String) {
        utility.print(name + String(repeating: " ", count: max(0, 20 - name.utf8.count)) + ": " + value)
    }

    private func sum(_ stored: UInt32, _ computed: UInt32) -> String {
        let state = stored == computed ? "Good!" : "Bad!"
        return "0x\(String(stored, radix: 16))|0x\(String(computed, radix: 16)) (\(state))"
    }

    // MARK: -p

    func headers() {
        footer(file.footer)
        guard let header = file.header else { return }
        summary(header)
        if file.isDifferencing { locators(header) }
        if let batmap = file.structures.sparse?.batmap { summary(batmap) }
    }

    private func footer(_ footer: VHDFooter) {
        utility.print("VHD Footer Summary:\n-------------------")
        print("Cookie", footer.isJournalled ? "v_poison" : "conectix")
        let words = (footer.features & 1 != 0 ? "<TEMP>" : "") + (footer.features & 2 != 0 ? "<RESV>" : "")
        print("Features", "(\(padded(footer.features))) \(words)")
        print("File format version", "Major: \(footer.formatVersion >> 16), Minor: \(footer.formatVersion & 0xFFFF)")
        print("Data offset", text(footer.dataOffset))
        print("Timestamp", VHDTools.date(footer.time.unix))
        print("Creator Application", "'\(footer.creator)'")
        print("Creator version", "Major: \(footer.creatorVersion >> 16), Minor: \(footer.creatorVersion & 0xFFFF)")
        let systems: [UInt32: String] = [0x5769_326B: "Windows", 0x4D61_6320: "Macintosh"]
        print("Creator OS", systems[footer.creatorSystem] ?? "Unknown!")
        print("Original disk size", "\(text(footer.originalSize >> 20)) MB (\(text(footer.originalSize)) Bytes)")
        print("Current disk size", "\(text(footer.currentSize >> 20)) MB (\(text(footer.currentSize)) Bytes)")
        let shape = footer.geometry
        print(
            "Geometry",
            "Cyl: \(text(shape.cylinders)), Hds: \(text(shape.heads)), Sctrs: \(text(shape.sectorsPerTrack))"
        )
        print("", "= \(text(shape.byteCount >> 20)) MB (\(text(shape.byteCount)) Bytes)")
        let kinds: [VHDKind: String] = [
            .fixed: "Fixed hard disk", .dynamic: "Dynamic hard disk", .differencing: "Differencing hard disk",
        ]
        print("Disk type", kinds[footer.kind] ?? "")
        print("Checksum", sum(footer.checksum, footer.computedChecksum))
        print("UUID", "\(footer.identifier)")
        print("Saved state", footer.saved == 0 ? "No" : "Yes")
        print("Hidden", "\(footer.hidden)\n")
    }

    private func summary(_ header: VHDHeader) {
        utility.print("VHD Header Summary:\n-------------------")
        print("Cookie", "cxsparse")
        print("Data offset (unusd)", text(header.nextOffset))
        print("Table offset", text(header.tableOffset))
        print("Header version", padded(header.version))
        print("Max BAT size", text(header.entryCount))
        print("Block size", "\(text(header.blockSize)) (\(text(header.blockSize >> 20)) MB)")
        print("Parent name", header.parentName ?? "failed to read name")
        print("Parent UUID", "\(header.parent)")
        print("Parent timestamp", VHDTools.date(header.parentTime.unix))
        print("Checksum", sum(header.checksum, header.computedChecksum) + "\n")
    }

    private func locators(_ header: VHDHeader) {
        utility.print("VHD Parent Locators:\n--------------------")
        let names: [VHDPlatform: String] = [
            .oldWindowsRelative: "WI2R", .oldWindowsAbsolute: "WI2K", .windowsRelative: "W2RU",
            .windowsAbsolute: "W2KU",
            .macAlias: "MAC", .macURL: "MACX",
        ]
        for index in 0..<VHDHeader.locatorCount {
            let locator = header[locator: index]
            if locator.isEmpty { continue }
            print("locator:", "\(index)")
            print("       code", locator.platform.flatMap { names[$0] }.map { "PLAT_CODE_\($0)" } ?? "UNKOWN")
            print("       data_space", text(locator.dataSpace))
            print("       data_length", text(locator.dataLength))
            print("       data_offset", text(locator.dataOffset))
            if let name = file.path(of: locator) {
                print("       decoded name", name + "\n")
            } else {
                utility.print("failed to read parent name\n")
            }
        }
    }

    private func summary(_ batmap: VHDBatmap) {
        utility.print("VHD Batmap Summary:\n-------------------")
        print("Batmap offset", text(batmap.mapOffset))
        print("Batmap size (secs)", text(batmap.mapSectors))
        print("Batmap version", padded(batmap.version))
        print("Checksum", sum(batmap.checksum, batmap.computedChecksum(file.byteCount)) + "\n")
    }

    // MARK: Tables

    private func refuse(_ what: String) -> VHDFailure { VHDFailure(file.path, Errno(rawValue: ERANGE), what) }

    /// The numbers from the option's on, `-c` of them; all must be below `end`.
    private func range(_ letter: Character, below end: UInt64, _ what: String) throws -> Range<UInt64>? {
        guard let first = arguments.number(letter) else { return nil }
        let (last, overflow) = first.addingReportingOverflow(count)
        guard !overflow, last <= end else { throw refuse("\(what) \(text(first)) past end of file") }
        return first..<last
    }

    func tables() throws {
        guard let sparse = file.structures.sparse else { return }
        let (map, layout) = (sparse.map, sparse.layout)
        let blocks = UInt64(map.count)
        for sector in try range("t", below: file.sectorCount, "sector") ?? 0..<0 {
            let (block, inBlock) = (sector / layout.sectorsPerBlock, sector % layout.sectorsPerBlock)
            let place = map.start(of: Int(block)).map { text(($0 + layout.bitmapSectors + inBlock) * 512) }
            utility.print(
                "logical sector \(text(sector)): block number: \(text(block)), sector offset: \(text(inBlock)), "
                    + "file offset: \(place ?? "not allocated")"
            )
        }
        for block in try range("b", below: blocks, "block") ?? 0..<0 {
            let place = map.start(of: Int(block)).map { text($0 * 512) } ?? "not allocated"
            utility.print("block: \(text(block)): offset: \(place)")
        }
        try bitmaps(map, layout)
        if arguments.has("a") {
            guard let batmap = sparse.batmap else {
                utility.print("failed to read batmap: \(-EINVAL)")
                throw VHDFailure(file.path, .invalidArgument, "has no batmap")
            }
            utility.put(batmap.map)
        }
        for block in try range("j", below: blocks, "block") ?? 0..<0 {
            guard let batmap = sparse.batmap else { throw VHDFailure(file.path, .invalidArgument, "has no batmap") }
            utility.complain("batmap for block \(text(block)): \(batmap[Int(block)] ? 1 : 0)\n")
        }
    }

    private func bitmaps(_ map: VHDMap, _ layout: VHDLayout) throws {
        if arguments.has("B") {
            var used = VHDBitmap([UInt8](repeating: 0, count: (map.count + 7) / 8))
            for block in 0..<map.count where map.start(of: block) != nil { used[block] = true }
            utility.put(used.bytes)
        }
        for block in try range("m", below: UInt64(map.count), "block") ?? 0..<0 {
            if map.start(of: Int(block)) == nil {
                utility.print("block \(text(block)) not allocated")
            } else {
                utility.put(try file.bitmap(of: Int(block)).bytes)
            }
        }
        for sector in try range("i", below: file.sectorCount, "sector") ?? 0..<0 {
            let (block, inBlock) = (Int(sector / layout.sectorsPerBlock), Int(sector % layout.sectorsPerBlock))
            let isPresent = map.start(of: block) == nil ? false : try file.bitmap(of: block)[inBlock]
            utility.print("block \(text(block)): sec: \(text(inBlock)): \(isPresent ? 1 : 0)")
        }
        if let sectors = try range("e", below: file.sectorCount, "sector") { try extents(sectors) }
    }

    private func extents(_ sectors: Range<UInt64>) throws {
        var open: Range<UInt64>?
        for run in try file.runs(in: sectors) where run.offset != nil {
            if let known = open, known.upperBound == run.sectors.lowerBound {
                open = known.lowerBound..<run.sectors.upperBound
                continue
            }
            if let open { utility.print("\(text(open.lowerBound)) \(text(open.count))") }
            open = run.sectors
        }
        if let open { utility.print("\(text(open.lowerBound)) \(text(open.count))") }
    }

    // MARK: Data

    func data() throws {
        if let sparse = file.structures.sparse {
            for block in try range("d", below: UInt64(sparse.map.count), "block") ?? 0..<0 {
                guard let start = sparse.map.start(of: Int(block)) else {
                    utility.print("block \(text(block)) not allocated")
                    continue
                }
                let offset = (start + sparse.layout.bitmapSectors) * 512
                utility.put(try file.bytes(at: offset, count: Int(sparse.layout.blockSize), "block \(block)"))
            }
        }
        if let sectors = try range("r", below: file.sectorCount, "sector") {
            try bytes(sectors.lowerBound * 512..<sectors.upperBound * 512)
        }
        if let range = try range("R", below: file.byteCount, "byte") { try bytes(range) }
    }

    private func bytes(_ range: Range<UInt64>) throws {
        let chain = try VHDChain(file)
        var next = range.lowerBound
        while next < range.upperBound {
            let end = min(range.upperBound, (next / (1 << 20) + 1) << 20)
            let sectors = next / 512..<(end + 511) / 512
            let found = try chain.read(sectors)
            let skip = Int(next - sectors.lowerBound * 512)
            utility.put(Array(found[skip..<skip + Int(end - next)]))
            next = end
        }
    }
}
