// One VHD as tools use it: opened, its structures checked and in memory. They may wait.

package import ImageFormats
internal import SystemPackage

/// An open image of one file. Its parents are other files (`VHDChain`).
package final class VHDFile {
    /// The name that it was opened by.
    package let path: String
    let storage: any VHDStorage
    package let isWritable: Bool
    package var structures: VHDStructures
    /// Blocks whose place is not in the file's table yet.
    package var unpublished: Set<Int> = []
    /// Bitmaps of published blocks that are to be written after their data.
    package var bitmaps: [Int: VHDBitmap] = [:]
    package var lastBitmap: (block: Int, bitmap: VHDBitmap)?
    /// Blocks that may have become full since the batmap was written.
    package var touched: Set<Int> = []
    package var isFooterDue = false

    init(_ path: String, _ storage: any VHDStorage, _ opening: VHDOpening = []) throws(VHDFailure) {
        self.path = path
        self.storage = storage
        isWritable = opening.contains(.writing)
        do throws(ImageFault) {
            structures = try VHDStructures(VHDSource(storage: storage), opening)
        } catch { throw VHDFailure(path, error) }
        if structures.sparse?.batmap?.isTrusted == false {
            // What it says is not believed; it is written anew with the next change.
            let count = structures.sparse?.batmap?.map.count ?? 0
            structures.sparse?.batmap?.map = [UInt8](repeating: 0, count: count)
        }
    }

    package var footer: VHDFooter {
        get { structures.footer }
        set { structures.footer = newValue }
    }
    package var header: VHDHeader? { structures.sparse?.header }
    package var layout: VHDLayout? { structures.sparse?.layout }
    package var byteCount: UInt64 { structures.footer.currentSize }
    package var sectorCount: UInt64 { byteCount / 512 }
    package var isDifferencing: Bool { footer.kind == .differencing }
    /// The parent is a raw image, by its null identifier.
    package var hasRawParent: Bool { isDifferencing && header?.parent.isNull == true }
    /// The file's bytes that are in use, footer included.
    package var usedByteCount: UInt64 { structures.dataEnd + UInt64(VHDFooter.byteCount) }

    // MARK: Reading

    /// Reads, and names the image in what goes wrong. Behind the file's end there are zeros.
    package func bytes(at offset: UInt64, count: Int, _ what: String) throws(VHDFailure) -> [UInt8] {
        do throws(Errno) { return try storage.read(at: offset, count: count) } catch {
            throw VHDFailure(path, "\(what) cannot be read at byte \(offset)", error)
        }
    }

    /// The bitmap of a block that has a place.
    package func bitmap(of block: Int) throws(VHDFailure) -> VHDBitmap {
        guard let sparse = structures.sparse, let start = sparse.map.start(of: block) else {
            throw VHDFailure(path, .invalidArgument, "block \(block) is not allocated")
        }
        if let pending = bitmaps[block] { return pending }
        if let last = lastBitmap, last.block == block { return last.bitmap }
        let count = Int(sparse.layout.bitmapSectors) * 512
        let bitmap = VHDBitmap(try bytes(at: start * 512, count: count, "the bitmap of block \(block)"))
        lastBitmap = (block, bitmap)
        return bitmap
    }

    package func isFull(_ block: Int) -> Bool { structures.sparse?.batmap?[block] ?? false }
}

/// Sectors of a disk that one image has in one piece, or has not.
package struct VHDRun: Hashable, Sendable {
    /// Sectors of the disk.
    package let sectors: Range<UInt64>
    /// The byte of the file where they begin; nil: zeros in a dynamic image, the parent's in a differencing one.
    package let offset: UInt64?
}

extension VHDFile {
    /// The runs of a range of the disk, in order.
    package func runs(in range: Range<UInt64>) throws(VHDFailure) -> [VHDRun] {
        guard let sparse = structures.sparse else {
            return [VHDRun(sectors: range, offset: range.lowerBound * 512)]
        }
        let (layout, map) = (sparse.layout, sparse.map)
        var found: [VHDRun] = []
        var next = range.lowerBound
        while next < range.upperBound {
            let block = Int(next / layout.sectorsPerBlock)
            let first = UInt64(block) * layout.sectorsPerBlock
            let end = min(range.upperBound, first + layout.sectorsPerBlock)
            guard let start = map.start(of: block) else {
                found.append(VHDRun(sectors: next..<end, offset: nil))
                next = end
                continue
            }
            let data = (start + layout.bitmapSectors) * 512
            let bitmap = isFull(block) ? nil : try bitmap(of: block)
            while next < end {
                let place = Int(next - first)
                let run = bitmap?.run(from: place, to: Int(end - first)) ?? (count: Int(end - next), isPresent: true)
                let offset = run.isPresent ? data + UInt64(place) * 512 : nil
                found.append(VHDRun(sectors: next..<next + UInt64(run.count), offset: offset))
                next += UInt64(run.count)
            }
        }
        return found
    }
}
