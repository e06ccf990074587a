// What vhd-util does to whole images: making, snapshots, coalescing, growing, filling.

internal import Glibc
internal import HostIO
package import ImageFormats
internal import SystemPackage

package enum VHDTools {
    private static let blockSize = UInt64(VHDHeader.usualBlockSize)

    /// Puts a new image where `path` is: a new file, or over an old one or a device that nobody has.
    package static func make(_ path: String, _ draft: ImageDraft, reserves: Bool = false) throws(VHDFailure) {
        let isNew = VHDPaths.byteCount(path) == nil
        if isNew {
            do throws(Errno) {
                _ = try OpenFile(path: path, flags: O_RDWR | O_CREAT | O_EXCL, permissions: 0o644)
            } catch { throw VHDFailure(path, "cannot be made", error) }
        }
        do throws(VHDFailure) {
            let storage = try VHDFile.storage(path, isWritable: true)
            do throws(Errno) { try put(draft, storage, reserves: reserves) } catch {
                throw VHDFailure(path, "cannot be written", error)
            }
        } catch {
            if isNew { _ = unsafe unlink(path) }
            throw error
        }
    }

    private static func put(_ draft: ImageDraft, _ storage: VHDFileStorage, reserves: Bool) throws(Errno) {
        if storage.isDevice, storage.byteCount < draft.byteCount { throw .noSpace }
        try storage.truncate(to: 0)
        let length = UInt64(VHDFooter.byteCount)
        if reserves {
            try storage.reserve(DiskRange(start: 0, count: draft.byteCount - length))
        } else if storage.isDevice {
            try storage.reserve(DiskRange(start: 0, count: draft.byteCount))
        }
        try storage.truncate(to: draft.byteCount)
        for piece in draft.pieces {
            // A device's footer is in its last sector.
            let isFooter = piece.offset == draft.byteCount - length
            let offset = isFooter && storage.isDevice ? storage.byteCount - length : piece.offset
            try storage.write(piece.bytes, at: offset)
        }
        try storage.flush()
    }

    /// A differencing image over `parent`.
    /// - Parameters:
    ///   - byteCount: nil for the parent's size.
    ///   - largest: 0 for none.
    package static func snapshot(
        _ path: String,
        of parent: String,
        isRaw: Bool,
        byteCount: UInt64?,
        largest: UInt64
    ) throws(VHDFailure) {
        let place = try VHDPaths.canonical(parent)
        var identifier = VHDIdentifier.null
        let parentSize: UInt64
        if isRaw {
            parentSize = try VHDFile.storage(place, isWritable: false).byteCount
        } else {
            let file = try VHDFile.open(place)
            (identifier, parentSize) = (file.footer.identifier, file.byteCount)
            if identifier.isNull {
                throw VHDFailure(parent, .invalidArgument, "has no identifier: vhd-util repair gives it one")
            }
        }
        let size = byteCount ?? parentSize
        guard size >= parentSize else {
            throw VHDFailure(path, .invalidArgument, "\(size) bytes, and its parent has \(parentSize)")
        }
        let child = try VHDPaths.canonicalTarget(path)
        let time = VHDTime(unix: try VHDPaths.changeTime(place))
        let relative = VHDPaths.relative(from: child, to: place)
        var options = VHDDraftOptions(
            byteCount: size,
            parent: VHDParent(relativePath: relative, identifier: identifier, time: time)
        )
        options.largestByteCount = largest
        let draft: ImageDraft
        do throws(ImageFault) { draft = try VHDFormat.draft(options) } catch { throw VHDFailure(path, error) }
        try make(path, draft)
    }

    /// Copies all sectors that an image has into its parent. Whoever reads through the image sees no difference.
    /// - Returns: how many sectors.
    package static func coalesce(_ path: String, _ progress: (Double) -> Void) throws(VHDFailure) -> UInt64 {
        let child = try VHDFile.open(path)
        guard child.isDifferencing else {
            throw VHDFailure(path, .invalidArgument, "coalescing of non-differencing disks is not supported")
        }
        let parent = try child.parentPath()
        if child.hasRawParent {
            let raw = try VHDFile.storage(parent, isWritable: true)
            return try copy(child, room: raw.byteCount / 512, parent, progress) { (bytes, sector) throws(VHDFailure) in
                do throws(Errno) { try raw.write(bytes, at: sector * 512) } catch {
                    throw VHDFailure(parent, "cannot be written", error)
                }
            } end: { () throws(VHDFailure) in
                do throws(Errno) { try raw.flush() } catch { throw VHDFailure(parent, "cannot be made durable", error) }
            }
        }
        let file = try VHDFile.open(parent, [.writing])
        guard file.footer.identifier == child.header?.parent else {
            throw VHDFailure(path, .invalidArgument, "\(parent) is another image than its parent")
        }
        return try copy(child, room: file.sectorCount, parent, progress) { (bytes, sector) throws(VHDFailure) in
            try file.write(bytes, at: sector)
        } end: { () throws(VHDFailure) in
            try file.finish()
        }
    }

    private static func copy(
        _ child: VHDFile,
        room: UInt64,
        _ parent: String,
        _ progress: (Double) -> Void,
        _ write: ([UInt8], UInt64) throws(VHDFailure) -> Void,
        end: () throws(VHDFailure) -> Void
    ) throws(VHDFailure) -> UInt64 {
        // Before anything is written: what does not fit must not be found out half-way.
        guard child.sectorCount <= room else {
            throw VHDFailure(parent, VHDFailure.outOfRange, "is smaller than \(child.path); resize it first")
        }
        var copied: UInt64 = 0
        let step = child.layout?.sectorsPerBlock ?? 4096
        var next: UInt64 = 0
        while next < child.sectorCount {
            progress(Double(next) / Double(child.sectorCount))
            let range = next..<min(child.sectorCount, next + step)
            for run in try child.runs(in: range) {
                guard let offset = run.offset else { continue }
                try write(try child.bytes(at: offset, count: run.sectors.count * 512, "data"), run.sectors.lowerBound)
                copied += UInt64(run.sectors.count)
            }
            next = range.upperBound
        }
        try end()
        progress(1)
        return copied
    }

    /// Gives the disk a size for which its tables have room; nothing is moved.
    package static func growFast(_ file: VHDFile, to byteCount: UInt64) throws(VHDFailure) {
        guard let layout = file.layout else {
            throw VHDFailure(file.path, .invalidArgument, "is fixed: it cannot be resized this way")
        }
        guard byteCount >= file.byteCount else {
            throw VHDFailure(file.path, .invalidArgument, "size (\(byteCount)) < curr size (\(file.byteCount))")
        }
        if byteCount == file.byteCount { return }
        let blocks = layout.blocks(ofDisk: byteCount)
        guard blocks <= UInt64(layout.entryCount), byteCount <= VHDFormat.largestDisk else {
            let reason = "its table has \(layout.entryCount) entries, and \(blocks) are needed: it was not made with -S"
            throw VHDFailure(file.path, .invalidArgument, reason)
        }
        file.structures.sparse?.map.resize(to: Int(blocks))
        file.footer.currentSize = byteCount
        // Its sum covers the blocks of the disk. Until it is written again the old one is not believed.
        try file.writeBatmap()
        try file.synchronize()
        try file.writeFooter()
    }

    /// Gives all blocks of a range a place, with all their sectors present, and no data but what is there.
    package static func fill(_ file: VHDFile, blocks: ClosedRange<Int>) throws(VHDFailure) {
        guard let layout = file.layout else { throw VHDFailure(file.path, .invalidArgument, "is fixed") }
        for block in blocks {
            if file.structures.sparse?.map.start(of: block) == nil { try file.allocate(block) }
            var bitmap = try file.bitmap(of: block)
            bitmap.insert(0..<Int(layout.sectorsPerBlock))
            file.bitmaps[block] = bitmap
            file.touched.insert(block)
            if file.bitmaps.count > 256 { try file.flush() }
        }
        try file.finish()
    }

    /// Reads everything through the chain and writes it into the leaf.
    package static func fill(_ file: VHDFile) throws(VHDFailure) {
        let chain = try VHDChain(file)
        let step = file.layout?.sectorsPerBlock ?? 4096
        var next: UInt64 = 0
        while next < file.sectorCount {
            let range = next..<min(file.sectorCount, next + step)
            try file.write(try chain.read(range), at: range.lowerBound)
            next = range.upperBound
        }
        try file.finish()
    }

    /// Drops all blocks.
    package static func dropData(_ file: VHDFile) throws(VHDFailure) {
        guard file.structures.sparse != nil else { throw VHDFailure(file.path, Errno(rawValue: ENOSYS), "is fixed") }
        let blocks = file.structures.sparse?.map.count ?? 0
        for block in 0..<blocks where file.structures.sparse?.map.start(of: block) != nil {
            file.structures.sparse?.map.forget(block)
            file.structures.sparse?.batmap?[block] = false
            file.unpublished.insert(block)
        }
        try file.writeBatmap()
        try file.flush()
        file.structures.sparse?.map.shrink()
        try file.writeFooter()
    }

    /// Names another parent. Its names must have room where the old ones are.
    package static func setParent(_ file: VHDFile, _ parent: String, isRaw: Bool) throws(VHDFailure) {
        guard file.isDifferencing, var header = file.header else {
            throw VHDFailure(file.path, .invalidArgument, "is not a differencing disk")
        }
        let place = try VHDPaths.canonical(parent)
        header.parent = isRaw ? .null : try VHDFile.open(place).footer.identifier
        header.parentTime = VHDTime(unix: try VHDPaths.changeTime(place))
        let relative = VHDPaths.relative(from: try VHDPaths.canonical(file.path), to: place)
        do throws(ImageFault) { try VHDFormat.name(relative, in: &header) } catch { throw VHDFailure(file.path, error) }
        var texts: [(offset: UInt64, bytes: [UInt8])] = []
        for index in 0..<VHDHeader.locatorCount {
            var locator = header[locator: index]
            guard let platform = locator.platform, platform.hasPath, let room = locator.byteCount else { continue }
            let text = VHDLocator.text(VHDFormat.locatorPath(relative, platform), for: platform)
            guard UInt64(text.count) <= room else {
                throw VHDFailure(
                    file.path,
                    Errno(rawValue: ENAMETOOLONG),
                    "no room for the parent's path of \(text.count) bytes"
                )
            }
            locator.dataLength = UInt32(truncatingIfNeeded: text.count)
            header[locator: index] = locator
            let padding = [UInt8](repeating: 0, count: Int(room) - text.count)
            texts.append((locator.dataOffset, text + padding))
        }
        for text in texts { try file.put(text.bytes, at: text.offset, "a parent locator") }
        file.structures.sparse?.header = header
        try file.writeHeader()
    }
}
