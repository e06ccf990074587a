// An image with its parents: found by the names in it, and read through.

internal import ImageFormats
internal import SystemPackage

extension VHDFile {
    /// Names of the parent as the image has them, the best one first.
    package func parentNames() throws(VHDFailure) -> [String] {
        guard isDifferencing, let header else { throw VHDFailure(path, .invalidArgument, "has no parent") }
        do throws(ImageFault) {
            return try VHDFormat.parentNames(header, VHDSource(storage: storage))
        } catch { throw VHDFailure(path, error) }
    }

    /// The canonical path of the parent: the first of its names that is there. Relative names are looked up from where
    /// the image itself is.
    package func parentPath() throws(VHDFailure) -> String {
        let names = try parentNames()
        let folder = VHDPaths.folder(of: try VHDPaths.canonical(path))
        for name in names {
            let place = name.hasPrefix("/") ? name : "\(folder)/\(name)"
            if VHDPaths.isReadable(place) { return try VHDPaths.canonical(place) }
        }
        let tried = names.isEmpty ? "it names none" : names.map { "'\($0)'" }.joined(separator: ", ")
        throw VHDFailure(path, .noSuchFileOrDirectory, "its parent is not there: \(tried)")
    }
}

/// An image, its parents up to the first that has none, and perhaps a raw one at the end.
package final class VHDChain {
    /// The leaf first.
    package let files: [VHDFile]
    private let rawParent: VHDFileStorage?
    private let rawPath: String?

    /// More than anybody builds: XenServer stops at 30.
    private static let depthLimit = 64

    package init(_ leaf: VHDFile) throws(VHDFailure) {
        var files = [leaf]
        var seen = [try VHDPaths.canonical(leaf.path)]
        var raw: (path: String, storage: VHDFileStorage)?
        while let child = files.last, child.isDifferencing, raw == nil {
            func broken(_ errno: Errno, _ reason: String) -> VHDFailure {
                VHDFailure(leaf.path, errno, "\(reason) (the chain: \(seen.joined(separator: " → ")))")
            }
            let path: String
            do throws(VHDFailure) { path = try child.parentPath() } catch { throw broken(error.errno, error.reason) }
            guard !seen.contains(path) else { throw broken(.tooManySymbolicLinkLevels, "its parents are a loop") }
            seen.append(path)
            guard seen.count <= VHDChain.depthLimit else { throw broken(.invalidArgument, "more than 64 parents") }
            do throws(VHDFailure) {
                if child.hasRawParent {
                    raw = (path, try VHDFile.storage(path, isWritable: false))
                } else {
                    files.append(try VHDFile.open(path))
                }
            } catch { throw broken(error.errno, "a parent cannot be used: \(error)") }
            if raw == nil, let parent = files.last, parent.footer.identifier != child.header?.parent {
                let wanted = child.header.map { "\($0.parent)" } ?? ""
                let text =
                    "\(path) is another image than the parent of \(child.path): \(parent.footer.identifier), not \(wanted)"
                throw broken(.invalidArgument, text)
            }
        }
        self.files = files
        rawParent = raw?.storage
        rawPath = raw?.path
    }

    /// Images in it, a raw one included.
    package var depth: Int { files.count + (rawParent == nil ? 0 : 1) }

    /// Whole sectors of the leaf's disk; where no image has any there are zeros.
    package func read(_ sectors: Range<UInt64>) throws(VHDFailure) -> [UInt8] {
        guard let leaf = files.first, sectors.upperBound <= leaf.sectorCount else {
            throw VHDFailure(files.first?.path ?? "", VHDFailure.outOfRange, "sectors \(sectors) are not on the disk")
        }
        var bytes = [UInt8](repeating: 0, count: sectors.count * 512)
        try fill(&bytes, sectors.lowerBound, sectors, level: 0)
        return bytes
    }

    private func fill(
        _ bytes: inout [UInt8],
        _ base: UInt64,
        _ sectors: Range<UInt64>,
        level: Int
    ) throws(VHDFailure) {
        guard level < files.count else { return try fillRaw(&bytes, base, sectors) }
        let file = files[level]
        // A shorter parent has zeros behind its end.
        let known = sectors.clamped(to: 0..<max(file.sectorCount, 0))
        for run in try file.runs(in: known) {
            guard let offset = run.offset else {
                if file.isDifferencing { try fill(&bytes, base, run.sectors, level: level + 1) }
                continue
            }
            let found = try file.bytes(at: offset, count: run.sectors.count * 512, "data")
            let start = Int(run.sectors.lowerBound - base) * 512
            bytes.replaceSubrange(start..<start + found.count, with: found)
        }
    }

    private func fillRaw(_ bytes: inout [UInt8], _ base: UInt64, _ sectors: Range<UInt64>) throws(VHDFailure) {
        guard let rawParent, let rawPath else { return }
        let found: [UInt8]
        do throws(Errno) { found = try rawParent.read(at: sectors.lowerBound * 512, count: sectors.count * 512) } catch
        {
            throw VHDFailure(rawPath, "cannot be read", error)
        }
        let start = Int(sectors.lowerBound - base) * 512
        bytes.replaceSubrange(start..<start + found.count, with: found)
    }
}
