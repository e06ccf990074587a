// vhd-util create, snapshot, coalesce, resize, fill, modify, set, repair, revert: what changes images.

import DiskImages
import Glibc
import ImageFormats
import SystemPackage

extension VHDUtility {
    /// vhd-util's sizes are whole blocks.
    private static func wholeBlocks(_ byteCount: UInt64) -> UInt64 {
        let block = UInt64(VHDHeader.usualBlockSize)
        return (byteCount + block - 1) / block * block
    }

    private static func draft(_ path: String, _ make: () throws -> ImageDraft) throws -> ImageDraft {
        do { return try make() } catch let fault as ImageFault {
            throw VHDFailure(path, .invalidArgument, fault.text)
        }
    }

    static let create = Command(
        name: "create",
        options: "n:s:S:rh",
        usage: "options: <-n name> <-s size (MB)> [-r reserve] [-h help] "
            + "[<-S size (MB) for metadata preallocation (see vhd-util resize)>]"
    ) { utility, arguments in
        let name = try arguments.name()
        guard arguments.has("s") || arguments.has("S") else { throw Usage() }
        let (size, largest) = (try arguments.megabytes("s") ?? 0, try arguments.megabytes("S") ?? 0)
        if largest > 0, largest < size {
            utility.print("Error: <-S size> must be greater than <-s size>")
            return EINVAL
        }
        let isFixed = arguments.has("r")
        let draft = try draft(name) {
            if isFixed { return try VHDFormat.draft(fixed: wholeBlocks(size)) }
            var options = VHDDraftOptions(byteCount: wholeBlocks(size))
            options.largestByteCount = wholeBlocks(largest)
            return try VHDFormat.draft(options)
        }
        try VHDTools.make(name, draft, reserves: isFixed)
        return 0
    }

    static let snapshot = Command(
        name: "snapshot",
        options: "n:p:S:l:meh",
        usage: "options: <-n name> <-p parent name> [-l snapshot depth limit] [-m parent_is_raw] "
            + "[-S size (MB) for metadata preallocation (see vhd-util resize)] "
            + "[-e link to supplied parent name even if it's empty] [-h help]"
    ) { utility, arguments in
        if arguments.has("h") { throw Usage(status: 0) }
        let name = try arguments.name()
        guard let parent = arguments["p"] else { throw Usage() }
        var target = Target(path: try VHDPaths.canonical(parent), isRaw: arguments.has("m"))
        if !target.isRaw, !arguments.has("e") { target = try snapshotTarget(target.path) }
        if let limit = arguments.number("l"), limit > 0, !target.isRaw {
            let depth = try VHDChain(try VHDFile.open(target.path)).depth
            if UInt64(depth) + 1 > limit {
                utility.print("snapshot depth exceeded: current depth: \(depth), limit: \(limit)")
                return ENOSPC
            }
        }
        try VHDTools.snapshot(
            name,
            of: target.path,
            isRaw: target.isRaw,
            byteCount: target.byteCount,
            largest: wholeBlocks(try arguments.megabytes("S") ?? 0)
        )
        return 0
    }

    private struct Target {
        var path: String
        var isRaw = false
        /// Of the image that was named, where another one is the parent.
        var byteCount: UInt64?
    }

    /// Parents that hold nothing are passed over: what they would add is a link to follow.
    private static func snapshotTarget(_ path: String) throws -> Target {
        let named = try VHDFile.open(path)
        var (file, place) = (named, path)
        // A loop of empty images ends at the chain's own limit.
        _ = try VHDChain(named)
        while file.isDifferencing, file.structures.sparse?.map.usedCount == 0 {
            place = try file.parentPath()
            if file.hasRawParent { return Target(path: place, isRaw: true, byteCount: named.byteCount) }
            file = try VHDFile.open(place)
        }
        return Target(path: place, byteCount: place == path ? nil : named.byteCount)
    }

    static let coalesce = Command(
        name: "coalesce",
        options: "n:o:a:x:sph",
        usage: "options: <-n name> [-s sparse] [-p progress] [-h help]"
    ) { utility, arguments in
        let name = try arguments.name()
        if let file = try? VHDFile.open(name), !file.isDifferencing {
            utility.print("coalescing of non-differencing disks is not supported")
        }
        let showsProgress = arguments.has("p")
        do {
            var shown = -1
            let count = try VHDTools.coalesce(name) { part in
                guard showsProgress, Int(part * 10000) != shown else { return }
                shown = Int(part * 10000)
                utility.put(Array("\r\(percent(shown))%".utf8))
            }
            if showsProgress { utility.print("") }
            utility.put(Array("Coalesced \(count) sectors".utf8))
            return 0
        } catch let failure as VHDFailure {
            utility.print("error coalescing: \(-failure.errno.rawValue)")
            throw failure
        }
    }

    /// `%6.2f` of hundredths.
    static func percent(_ hundredths: Int) -> String {
        let text = "\(hundredths / 100).\(hundredths % 100 < 10 ? "0" : "")\(hundredths % 100)"
        return String(repeating: " ", count: max(0, 6 - text.utf8.count)) + text
    }

    static let resize = Command(
        name: "resize",
        options: "n:s:j:fh",
        usage: "options: <-n name> <-s size (in MB)> (<-j journal>|<-f fast>) [-h help]\n\n"
            + "With -f, an image that was made with -S <msize> grows up to that size; nothing is moved. "
            + "With -j, tables that are too small are made larger, and blocks in their way are moved; "
            + "what was there before is kept in the journal until all is done."
    ) { utility, arguments in
        let name = try arguments.name()
        guard let size = try arguments.megabytes("s"), arguments.has("f") != arguments.has("j") else { throw Usage() }
        let file = try utility.open(name, [.writing])
        guard file.footer.isFromTapdisk else {
            utility.print("\(name) not created by xen; resize not supported")
            return EINVAL
        }
        if let journal = arguments["j"] {
            do {
                try VHDResize.run(file, to: wholeBlocks(size), journal: journal)
            } catch let failure as VHDFailure {
                utility.print("resize failed: \(-failure.errno.rawValue)")
                throw failure
            }
        } else {
            let wanted = wholeBlocks(size)
            if wanted < file.byteCount {
                utility.print("\(name): size (\(wanted)) < curr size (\(file.byteCount))")
                return EINVAL
            }
            try VHDTools.growFast(file, to: wanted)
        }
        return 0
    }

    static let revert = Command(
        name: "revert",
        options: "n:j:h",
        usage: "options: <-n name> <-j journal> [-h help]"
    ) { utility, arguments in
        let name = try arguments.name()
        guard let journal = arguments["j"] else { throw Usage() }
        do {
            try VHDResize.revert(name, journal: journal)
            return 0
        } catch let failure as VHDFailure {
            utility.print("reverting journal failed: \(-failure.errno.rawValue)")
            throw failure
        }
    }

    static let fill = Command(
        name: "fill",
        options: "n:f:t:bBh",
        usage: "options: <-n name> [-h help] [-b initialise the BAT and bitmaps, don't write to the data blocks "
            + "(much faster)] [-f start intialisation from this sector, only usable with -b] [-t intialise up to this "
            + "sector (inclusive), only usable with -b] [-B ignore the 2 TB limit, only usable with -b]"
    ) { utility, arguments in
        let name = try arguments.name()
        if !arguments.has("b") {
            for (letters, text) in [("ft", "-f/-t can only be used with -b"), ("B", "-B can only be used with -b")]
            where letters.contains(where: arguments.has) {
                utility.print(text)
                throw Usage()
            }
        }
        let (from, to) = (arguments.number("f"), arguments.number("t"))
        if let from, let to, to < from {
            utility.print("invalid sector range \(from)-\(to)")
            throw Usage()
        }
        // -B: no address is behind the limit in any case, whatever is asked for.
        let file = try utility.open(name, [.writing])
        guard let layout = file.layout, file.structures.sparse != nil else { return EINVAL }
        if !arguments.has("b") {
            try VHDTools.fill(file)
            return 0
        }
        let last = (file.structures.sparse?.map.count ?? 1) - 1
        let first = Int(clamping: (from ?? 0) / layout.sectorsPerBlock)
        let end = min(last, Int(clamping: (to ?? .max) / layout.sectorsPerBlock))
        guard first <= end else { return ERANGE }
        try VHDTools.fill(file, blocks: first...end)
        return 0
    }

    static let modify = Command(
        name: "modify",
        options: "n:s:p:mzh",
        usage: "*** Dangerous operations, use with care ***\n"
            + "options: <-n name> [-p NEW_PARENT set parent [-m raw]] [-s NEW_SIZE set size] [-z zero (kill data)] [-h help]"
    ) { utility, arguments in
        let file = try utility.open(try arguments.name(), [.writing])
        var status: CInt = 0
        if arguments.has("z") {
            do { try VHDTools.dropData(file) } catch let failure as VHDFailure {
                utility.print("failed to zero VHD: \(-failure.errno.rawValue)")
                status = failure.errno.rawValue
            }
        }
        if let size = arguments.number("s") {
            do { try file.moveFooter(to: size) } catch let failure as VHDFailure {
                utility.print("failed to set physical size to \(size): \(-failure.errno.rawValue)")
                status = failure.errno.rawValue
            }
        }
        if let parent = arguments["p"] {
            do { try VHDTools.setParent(file, parent, isRaw: arguments.has("m")) } catch let failure as VHDFailure {
                utility.print("failed to set parent to '\(parent)': \(-failure.errno.rawValue)")
                throw failure
            }
        }
        return status
    }

    static let set = Command(
        name: "set",
        options: "n:f:v:h",
        usage: "options: <-n name> <-f field> <-v value> [-h help]"
    ) { utility, arguments in
        let name = try arguments.name()
        guard let field = arguments["f"], let value = arguments.number("v") else { throw Usage() }
        guard field == "hidden" || field == "marker" else {
            utility.print("invalid field \(field)")
            throw Usage()
        }
        guard value <= 255 else {
            utility.print("invalid value \(value)")
            throw Usage()
        }
        let file = try utility.open(name, [.writing])
        let byte = UInt8(truncatingIfNeeded: value)
        if field == "marker" {
            try file.setMarker(byte)
            return 0
        }
        file.footer.hidden = byte
        do { try file.writeFooter() } catch let failure as VHDFailure {
            // A full file system: the copy at least, so that the image can be deleted.
            guard failure.errno == .noSpace, file.structures.sparse != nil, byte != 0 else { throw failure }
            try file.writeFooterCopy()
        }
        return 0
    }

    static let repair = Command(
        name: "repair",
        options: "n:bh",
        usage: "options: <-n name> <-b use the back-up footer> [-h help]"
    ) { utility, arguments in
        let opening: VHDOpening = arguments.has("b") ? [.writing, .backupFooter] : [.writing]
        let file = try utility.open(try arguments.name(), opening)
        if file.footer.identifier.isNull { file.footer.identifier = .random() }
        try file.writeFooter()
        return 0
    }
}
