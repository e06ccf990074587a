// vhd-util query, check and scan: what is asked of images.

import DiskImages
import Glibc
import ImageFormats
import SystemPackage

extension VHDUtility {
    static let query = Command(
        name: "query",
        options: "n:vspfdSmauh",
        usage: "options: <-n name> [-v print virtual size (in MB)] [-s print physical utilization (bytes)] "
            + "[-p print parent] [-f print fields] [-m print marker] [-d print chain depth] "
            + "[-S print max virtual size (MB) for fast resize] [-a print allocated block count] "
            + "[-u don't resolve parent path] [-h help]"
    ) { utility, arguments in
        if arguments.has("h") { throw Usage(status: 0) }
        let name = try arguments.name()
        let file = try utility.open(name, [.journalled])
        var status: CInt = 0
        /// The first that goes wrong decides; the others are printed all the same.
        func attempt(_ what: String, _ body: () throws -> Void) rethrows {
            do { try body() } catch let failure as VHDFailure {
                utility.print(what.isEmpty ? "query failed" : "error \(what): \(-failure.errno.rawValue)")
                if status == 0 { status = failure.errno.rawValue }
            }
        }
        if arguments.has("v") { utility.print("\(file.byteCount >> 20)") }
        if arguments.has("s") { utility.print("\(file.usedByteCount)") }
        if arguments.has("p") {
            if !file.isDifferencing {
                utility.print("\(name) has no parent")
            } else {
                try attempt("") {
                    let names = try file.parentNames()
                    utility.print(arguments.has("u") ? names.first ?? "" : try file.parentPath())
                }
            }
        }
        if arguments.has("f") { utility.print("hidden: \(file.footer.hidden)") }
        if arguments.has("m") { utility.print("marker: \(file.structures.sparse?.batmap?.marker ?? 0)") }
        if arguments.has("d") {
            try attempt("checking chain depth") { utility.print("chain depth: \(try VHDChain(file).depth)") }
        }
        if arguments.has("a") {
            if let map = file.structures.sparse?.map {
                utility.print("\(map.usedCount)")
            } else {
                utility.print("error reading bat: \(-EINVAL)")
                if status == 0 { status = EINVAL }
            }
        }
        if arguments.has("S") { utility.print("\(UInt64(file.header?.entryCount ?? 0) * 2)") }
        return status
    }

    static let check = Command(
        name: "check",
        options: "n:iItpbBsh",
        usage: "options: -n <file> [-i ignore missing primary footers] [-I ignore parent uuids] [-t ignore timestamps] "
            + "[-B do not check BAT for overlapping (precludes -s, -b)] [-p check parents] [-b check bitmaps] "
            + "[-s stats] [-h help]"
    ) { utility, arguments in
        if arguments.has("h") { throw Usage(status: 0) }
        let name = try arguments.name()
        if arguments.has("B"), arguments.has("s") || arguments.has("b") { throw Usage() }
        var status = try utility.checkOne(name, arguments)
        guard status == 0, arguments.has("p") else { return status }
        var place = name
        var seen = [try VHDPaths.canonical(name)]
        while true {
            let file = try utility.open(place, [.journalled])
            if !file.isDifferencing || file.hasRawParent { return status }
            do { place = try file.parentPath() } catch let failure as VHDFailure {
                utility.print("error getting parent: \(-failure.errno.rawValue)")
                utility.print("error checking parents: \(-failure.errno.rawValue)")
                throw failure
            }
            guard !seen.contains(place) else {
                throw VHDFailure(
                    name,
                    .tooManySymbolicLinkLevels,
                    "its parents are a loop: \(seen.joined(separator: " → "))"
                )
            }
            seen.append(place)
            status = try utility.checkOne(place, arguments)
            if status != 0 {
                utility.print("error checking parents: \(-status)")
                return status
            }
        }
    }

    private func checkOne(_ name: String, _ arguments: VHDArguments) throws -> CInt {
        var options = VHDCheckOptions()
        options.forgivesFooter = arguments.has("i")
        options.forgivesTimes = arguments.has("t")
        options.comparesBlocks = !arguments.has("B")
        options.readsData = arguments.has("b")
        options.readsBitmaps = arguments.has("s")
        let result = try VHDTools.check(name, options)
        var faults = result.problems.filter(\.fails).map(\.text)
        if faults.isEmpty, result.isDifferencing {
            if let fault = parentFault(name, ignoresIdentifier: arguments.has("I")) { faults.append(fault) }
        }
        if let first = faults.first {
            print(first)
            return EINVAL
        }
        // A fixed one has nothing more to be said of, as with vhd-util.
        if result.totalBlocks == 0 { return 0 }
        if arguments.has("s") {
            let allocated = result.usedBlocks * result.sectorsPerBlock
            let part = allocated == 0 ? 0 : Int(result.presentSectors * 10000 / allocated)
            let share = VHDUtility.percent(part).drop { $0 == " " }
            print(
                "\(VHDPaths.name(of: name)): secs allocated: 0x\(String(allocated, radix: 16)) "
                    + "secs written: 0x\(String(result.presentSectors, radix: 16)) (\(share)%)"
            )
        } else {
            print("\(name) is valid")
        }
        return 0
    }

    private func parentFault(_ name: String, ignoresIdentifier: Bool) -> String? {
        do {
            let file = try VHDFile.open(name, [.journalled])
            let place = try file.parentPath()
            if file.hasRawParent || ignoresIdentifier { return nil }
            guard let parent = try? VHDFile.open(place, [.journalled]) else { return "error opening parent: \(place)" }
            return parent.footer.identifier == file.header?.parent ? nil : "invalid parent uuid: \(place)"
        } catch {
            return "error resolving parent: \(error)"
        }
    }

    static let scan = Command(
        name: "scan",
        options: "m:fcl:pavMh",
        usage: "usage: [OPTIONS] FILES\noptions: [-m match filter] [-f fast] [-c continue on failure] [-l LVM volume] "
            + "[-p pretty print] [-a scan parents] [-v verbose] [-h help] [-M show markers]"
    ) { utility, arguments in
        if arguments.has("h") { throw Usage(status: 0) }
        if arguments["m"] == nil, arguments.rest.isEmpty { throw Usage() }
        if let group = arguments["l"] {
            throw VHDFailure(group, .notSupported, "volume groups are not scanned; name the logical volumes' devices")
        }
        return try VHDScan(utility, arguments).run()
    }
}

/// `vhd-util scan`: one line for each image, or a tree.
struct VHDScan {
    private struct Image {
        var name: String
        var parent: String?
        var capacity: UInt64 = 0
        var size: UInt64 = 0
        var hidden: UInt8 = 0
        var marker: UInt8 = 0
        var error: (number: CInt, message: String)?
    }

    private let utility: VHDUtility
    private let arguments: VHDArguments
    private var isPretty: Bool { arguments.has("p") }
    private var goesOn: Bool { arguments.has("c") }

    init(_ utility: VHDUtility, _ arguments: VHDArguments) {
        self.utility = utility
        self.arguments = arguments
    }

    func run() throws -> CInt {
        var targets: [(path: String, isRaw: Bool)] = try files().map { ($0, false) }
        var images: [Image] = []
        var status: CInt = 0
        var next = 0
        while next < targets.count {
            let target = targets[next]
            next += 1
            let image = look(target.path, isRaw: target.isRaw)
            if isPretty, image.error == nil {
                if !images.contains(where: { $0.name == image.name }) { images.append(image) }
            } else {
                line(image, indent: 0, isKnown: true)
            }
            if arguments.has("a"), let parent = image.parent, next < 4096,
                !targets.contains(where: { VHDPaths.name(of: $0.path) == VHDPaths.name(of: parent) })
            {
                targets.append((parent, (try? VHDFile.open(image.name, [.journalled]))?.hasRawParent ?? false))
            }
            if let error = image.error {
                status = error.number
                if !goesOn { break }
            }
        }
        if isPretty { tree(images) }
        return goesOn ? 0 : status
    }

    /// The files that are named, and those that match.
    private func files() throws -> [String] {
        guard let filter = arguments["m"] else { return arguments.rest }
        let found = VHDTools.matching(filter)
        if found.isEmpty {
            line(Image(name: filter, error: (ENOENT, "failure scanning target")), indent: 0, isKnown: true)
            if !goesOn { throw VHDFailure(filter, .noSuchFileOrDirectory, "matches no file") }
        }
        return found + arguments.rest
    }

    private func look(_ path: String, isRaw: Bool) -> Image {
        var image = Image(name: path)
        guard let size = VHDPaths.byteCount(path) else {
            image.error = (ENOENT, "failure scanning target")
            return image
        }
        image.size = size
        image.capacity = size
        if isRaw { return image }
        var step = "opening file"
        do throws(VHDFailure) {
            let file = try VHDFile.open(path, [.journalled])
            image.capacity = file.byteCount
            image.hidden = file.footer.hidden
            image.marker = file.structures.sparse?.batmap?.marker ?? 0
            step = "getting parent"
            if file.isDifferencing { image.parent = try file.parentPath() }
        } catch {
            image.error = (error.errno.rawValue, step)
        }
        return image
    }

    private func line(_ image: Image, indent: Int, isKnown: Bool) {
        let space = String(repeating: " ", count: indent)
        if let error = image.error {
            utility.print("\(space)vhd=\(image.name) scan-error=\(-error.number) error-message='\(error.message)'")
            return
        }
        let isVerbose = arguments.has("v")
        let name = isVerbose ? image.name : VHDPaths.name(of: image.name)
        let parent = image.parent.map { isVerbose ? $0 : VHDPaths.name(of: $0) } ?? "none"
        let note = isPretty && image.parent != nil && !isKnown ? " (not found in scan)" : ""
        let marker = arguments.has("M") ? "marker=\(image.marker) keyhash= " : ""
        utility.print(
            "\(space)vhd=\(name) capacity=\(image.capacity) size=\(image.size) hidden=\(image.hidden) "
                + "\(marker)parent=\(parent)\(note)"
        )
    }

    /// Parents before their children, hidden roots and visible children first.
    private func tree(_ images: [Image]) {
        let sorted = images.sorted { $0.name.utf8.lexicographicallyPrecedes($1.name.utf8) }
        // A scan may name files by other paths than their children do.
        let places = sorted.map { (try? VHDPaths.canonical($0.name)) ?? $0.name }
        var printed: Set<Int> = []
        func show(_ index: Int, _ depth: Int, isKnown: Bool) {
            guard printed.insert(index).inserted else { return }
            line(sorted[index], indent: depth * 3, isKnown: isKnown)
            let children = sorted.indices.filter { sorted[$0].parent == places[index] }
            for wanted in [false, true] {
                for child in children where (sorted[child].hidden != 0) == wanted {
                    show(child, depth + 1, isKnown: true)
                }
            }
        }
        let roots = sorted.indices.filter { index in sorted[index].parent.map { !places.contains($0) } ?? true }
        for index in roots where sorted[index].hidden != 0 { show(index, 0, isKnown: false) }
        for index in roots { show(index, 0, isKnown: false) }
        for index in sorted.indices { show(index, 0, isKnown: true) }
    }
}
