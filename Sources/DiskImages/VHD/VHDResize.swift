// vhd-util resize -j: larger tables, with an undo journal, and revert.

internal import Glibc
internal import HostIO
internal import ImageFormats
internal import SystemPackage

package enum VHDResize {
    /// Grows a disk whose tables have no room for it: blocks that are in the way are moved to the end, and the tables
    /// behind the first are moved up. Until all is done the image says that it must not be used.
    package static func run(_ file: VHDFile, to byteCount: UInt64, journal path: String) throws(VHDFailure) {
        guard byteCount >= file.byteCount else {
            throw VHDFailure(file.path, .notSupported, "a VHD is not made smaller: copy it into a smaller one")
        }
        if byteCount == file.byteCount { return }
        guard byteCount <= VHDFormat.largestDisk else {
            throw VHDFailure(file.path, .invalidArgument, "a VHD has 2040 GiB at most")
        }
        let end = file.storage.isDevice ? file.storage.byteCount - 512 : file.structures.dataEnd
        var journal = try VHDJournal(creating: path, identifier: file.footer.identifier, footerOffset: end)
        do throws(VHDFailure) {
            try save(file, into: &journal, footerOffset: end)
            file.footer.isJournalled = true
            try file.writeFooter()
            if file.structures.sparse == nil {
                try growFixed(file, byteCount)
            } else {
                try grow(file, byteCount, &journal)
            }
        } catch {
            try putBack(file.storage, journal)
            try journal.commit()
            journal.remove()
            throw error
        }
        // From here on nothing is undone: the image is whole, and only says that it is not.
        try journal.commit()
        file.footer.isJournalled = false
        try file.writeFooter()
        journal.remove()
    }

    private static func save(_ file: VHDFile, into journal: inout VHDJournal, footerOffset: UInt64) throws(VHDFailure) {
        // A footer that a crash has cost is written first, so that there is one to be put back.
        try file.writeFooter()
        try journal.add(.footer, file.footer.bytes, at: footerOffset)
        if let sparse = file.structures.sparse {
            let (header, layout) = (sparse.header, sparse.layout)
            try journal.add(.footerCopy, file.footer.bytes, at: 0)
            func add(_ kind: VHDJournal.Kind, _ offset: UInt64, _ count: UInt64) throws(VHDFailure) {
                try journal.add(kind, try file.bytes(at: offset, count: Int(count), "a header"), at: offset)
            }
            try add(.header, file.footer.dataOffset, UInt64(VHDHeader.byteCount))
            for locator in header.locators { try add(.locator, locator.dataOffset, locator.byteCount ?? 512) }
            try add(.table, layout.tableOffset, VHDLayout.paddedTableByteCount(UInt32(sparse.map.count)))
            if let batmap = sparse.batmap {
                try add(.batmapHeader, layout.tableOffset + layout.tableByteCount, UInt64(VHDBatmap.headerByteCount))
                try add(.batmap, batmap.mapOffset, UInt64(batmap.mapSectors) * 512)
            }
        }
        try journal.synchronize()
    }

    private static func growFixed(_ file: VHDFile, _ byteCount: UInt64) throws(VHDFailure) {
        let old = file.byteCount
        do throws(Errno) {
            if file.storage.isDevice, byteCount + 512 > file.storage.byteCount { throw .noSpace }
            try file.storage.reserve(DiskRange(start: old, count: byteCount - old))
        } catch { throw VHDFailure(file.path, "no room for the disk", error) }
        file.footer.currentSize = byteCount
        try file.writeFooter()
    }

    private static func grow(_ file: VHDFile, _ byteCount: UInt64, _ journal: inout VHDJournal) throws(VHDFailure) {
        guard let sparse = file.structures.sparse else { return }
        let blocks = sparse.layout.blocks(ofDisk: byteCount)
        let entries = max(sparse.layout.entryCount, UInt32(truncatingIfNeeded: blocks))
        var header = sparse.header
        header.entryCount = entries
        let layout = VHDLayout(header)
        // What follows the table, in the order that blktap has: batmap, map, locators.
        var end = layout.tableOffset + layout.tableByteCount
        var batmap = sparse.batmap
        if let old = batmap {
            var new = VHDBatmap(offset: end + UInt64(VHDBatmap.headerByteCount), entries: entries)
            new.marker = old.marker
            new.map.replaceSubrange(0..<min(old.map.count, new.map.count), with: old.map.prefix(new.map.count))
            end = new.mapOffset + UInt64(new.map.count)
            batmap = new
        }
        var texts: [(offset: UInt64, bytes: [UInt8])] = []
        for index in 0..<VHDHeader.locatorCount {
            var locator = header[locator: index]
            guard !locator.isEmpty, let room = locator.byteCount else { continue }
            texts.append((end, try file.bytes(at: locator.dataOffset, count: Int(room), "a parent locator")))
            locator.dataOffset = end
            header[locator: index] = locator
            end += room
        }
        try makeRoom(file, upTo: (end + 511) / 512, &journal)
        let table = file.structures.sparse?.map.entries ?? []
        file.footer.currentSize = byteCount
        try rewrite(file, header, layout, batmap, texts, table, headerEnd: end)
    }

    /// Moves all blocks whose places the headers will need to the end.
    private static func makeRoom(_ file: VHDFile, upTo sector: UInt64, _ journal: inout VHDJournal) throws(VHDFailure) {
        guard let map = file.structures.sparse?.map, let layout = file.layout else { return }
        file.structures.sparse?.map.keepBlocksBehind(sector)
        let moved = (0..<map.count).filter { map.start(of: $0).map { $0 < sector } ?? false }
        for block in moved {
            guard let start = map.start(of: block) else { continue }
            let bitmap = try file.bytes(at: start * 512, count: Int(layout.bitmapSectors) * 512, "a bitmap")
            let place = (start + layout.bitmapSectors) * 512
            let data = try file.bytes(at: place, count: Int(layout.blockSize), "a block")
            try journal.add(.data, bitmap, at: start * 512)
            try journal.add(.data, data, at: place)
            try journal.synchronize()
            file.structures.sparse?.map.forget(block)
            let new = try file.allocate(block)
            try file.put(bitmap, at: new * 512, "a bitmap")
            try file.put(data, at: (new + layout.bitmapSectors) * 512, "a block")
        }
        try file.synchronize()
    }

    private static func rewrite(
        _ file: VHDFile,
        _ header: VHDHeader,
        _ layout: VHDLayout,
        _ batmap: VHDBatmap?,
        _ texts: [(offset: UInt64, bytes: [UInt8])],
        _ table: [UInt32],
        headerEnd: UInt64
    ) throws(VHDFailure) {
        var bytes: [UInt8] = []
        for entry in table {
            for shift in [24, 16, 8, 0] as [UInt32] { bytes.append(UInt8(truncatingIfNeeded: entry >> shift)) }
        }
        bytes += [UInt8](repeating: 0xFF, count: Int(layout.entryCount) * 4 - bytes.count)
        bytes += [UInt8](repeating: 0, count: Int(layout.tableByteCount) - bytes.count)
        let blocks = Int(layout.blocks(ofDisk: file.byteCount))
        let map: VHDMap
        do throws(ImageFault) { map = try VHDMap(layout, table: bytes, count: blocks, headerEnd: headerEnd) } catch {
            throw VHDFailure(file.path, error)
        }
        file.structures.sparse?.header = header
        file.structures.sparse?.map = map
        file.structures.sparse?.batmap = batmap
        file.unpublished = []
        file.lastBitmap = nil
        try file.put(bytes, at: layout.tableOffset, "the allocation table")
        try file.writeBatmap()
        for text in texts { try file.put(text.bytes, at: text.offset, "a parent locator") }
        try file.synchronize()
        try file.writeHeader()
        try file.writeFooter()
    }

    /// Puts back what an unfinished resize has changed.
    package static func revert(_ path: String, journal journalPath: String) throws(VHDFailure) {
        var journal = try VHDJournal(opening: journalPath)
        let storage = try VHDFile.storage(path, isWritable: true)
        let footer: VHDFooter
        do throws(ImageFault) { footer = try VHDStructures.footer(storage, headOnly: false).0 } catch {
            throw VHDFailure(path, error)
        }
        guard footer.identifier == journal.identifier else {
            throw VHDFailure(path, .invalidArgument, "\(journalPath) is the journal of another image")
        }
        try putBack(storage, journal)
        try journal.commit()
        // Of one that was committed already, only the mark is left to be taken away.
        let file = try VHDFile(path, storage, [.writing, .journalled])
        file.footer.isJournalled = false
        try file.writeFooter()
        journal.remove()
    }

    private static func putBack(_ storage: any VHDStorage, _ journal: VHDJournal) throws(VHDFailure) {
        let entries = try journal.entries()
        if entries.isEmpty { return }
        do throws(Errno) {
            for entry in entries {
                let bytes: [UInt8]
                do throws(VHDFailure) { bytes = try journal.bytes(entry.bytes) } catch { throw error.errno }
                try storage.write(bytes, at: entry.offset)
            }
            try storage.truncate(to: journal.footerOffset + UInt64(VHDFooter.byteCount))
            try storage.flush()
        } catch { throw VHDFailure(journal.path, "what it holds cannot be put back", error) }
    }
}
