// The structures of a VHD, read: each from a place inside the file, each checked before the next is looked for.

internal import SystemPackage

/// What a VHD is opened for.
package struct VHDOpening: OptionSet, Sendable {
    package let rawValue: Int
    package init(rawValue: Int) { self.rawValue = rawValue }

    package static let writing = VHDOpening(rawValue: 1)
    /// Also if a journalled resize has not ended.
    package static let journalled = VHDOpening(rawValue: 2)
    /// The footer at the beginning is used, whatever is at the end.
    package static let backupFooter = VHDOpening(rawValue: 4)
}

/// Footer, header and tables of one file, in memory.
package struct VHDStructures: Sendable {
    package var footer: VHDFooter
    /// False: the footer at the end is missing, as after a crash; what the one at the beginning says holds.
    package let isFooterAtEnd: Bool
    /// The file's size.
    package let byteCount: UInt64
    /// What a fixed image has none of.
    package var sparse: Sparse?

    package struct Sparse: Sendable {
        package var header: VHDHeader
        package var map: VHDMap
        package var batmap: VHDBatmap?
        package var layout: VHDLayout { map.layout }
    }

    package init(_ source: some ImageSource, _ opening: VHDOpening = []) throws(ImageFault) {
        byteCount = source.byteCount
        let found = try VHDStructures.footer(source, headOnly: opening.contains(.backupFooter))
        (footer, isFooterAtEnd) = found
        if footer.isJournalled, !opening.contains(.journalled) {
            throw ImageFault(
                .unsupported,
                "a resize by vhd-util did not end; undo it: vhd-util revert -n NAME -j JOURNAL"
            )
        }
        let isWritable = opening.contains(.writing)
        if footer.kind.isSparse {
            sparse = try VHDStructures.tables(source, footer, isWritable: isWritable)
        } else if footer.currentSize > byteCount - 511 {
            throw ImageFault(.corrupt, "a fixed disk of \(footer.currentSize) bytes in a file of \(byteCount)")
        }
        if isWritable, footer.isFromLaterTapdisk {
            throw ImageFault(.unsupported, "written by a later blktap than any known: it can only be read")
        }
        if sparse?.batmap?.isEncrypted == true { throw ImageFault(.unsupported, "its data is encrypted") }
    }

    /// Where the file's data ends and its footer belongs, in bytes.
    package var dataEnd: UInt64 { sparse.map { $0.map.endSector * 512 } ?? footer.currentSize }

    /// Bytes that must all be there.
    /// - Parameter count: bounded by the caller.
    private static func bytes(
        _ source: some ImageSource,
        _ offset: UInt64,
        _ count: UInt64,
        _ what: String
    ) throws(ImageFault) -> [UInt8] {
        guard let range = DiskRange(checking: offset, count: count), range.end <= source.byteCount else {
            throw ImageFault(.corrupt, "\(what): not inside the file, at byte \(offset)")
        }
        do throws(Errno) { return try source.read(at: offset, count: Int(count)) } catch {
            throw ImageFault(.storage(error), "\(what): cannot be read: \(error)")
        }
    }

    /// The footer at the end, of 512 or 511 bytes, or the copy at the beginning, which alone survives a crash while
    /// blocks are being added.
    package static func footer(
        _ source: some ImageSource,
        headOnly: Bool
    ) throws(ImageFault) -> (VHDFooter, isAtEnd: Bool) {
        let size = source.byteCount
        guard size >= 511 else { throw ImageFault(.foreign, "a file of \(size) bytes is no VHD") }
        if !headOnly {
            let count: UInt64 = size % 512 == 511 ? 511 : min(512, size)
            let end = try bytes(source, size - count, count, "footer")
            if let footer = try? VHDFooter(parsing: end) { return (footer, true) }
        }
        let footer = try VHDFooter(parsing: try bytes(source, 0, min(512, size), "footer"))
        // A fixed disk has its guest's data at the beginning: nothing there is believed.
        guard footer.kind.isSparse else { throw ImageFault(.corrupt, "footer: missing at the end") }
        return (footer, false)
    }

    package static func header(_ source: some ImageSource, _ footer: VHDFooter) throws(ImageFault) -> VHDHeader {
        guard footer.dataOffset >= 512, footer.dataOffset % 512 == 0 else {
            throw ImageFault(.corrupt, "footer: the header cannot be at byte \(footer.dataOffset)")
        }
        return try VHDHeader(parsing: try bytes(source, footer.dataOffset, UInt64(VHDHeader.byteCount), "header"))
    }

    private static func tables(
        _ source: some ImageSource,
        _ footer: VHDFooter,
        isWritable: Bool
    ) throws(ImageFault) -> Sparse {
        let header = try header(source, footer)
        let layout = VHDLayout(header)
        let blocks = layout.blocks(ofDisk: footer.currentSize)
        guard blocks <= UInt64(header.entryCount) else {
            throw ImageFault(.corrupt, "header: \(blocks) blocks, and \(header.entryCount) entries in the table")
        }
        guard blocks * 4 <= VHDMap.tableLimit else {
            throw ImageFault(.limit, "header: blocks of \(header.blockSize) bytes make too large a table")
        }
        let table = try bytes(source, layout.tableOffset, blocks * 4, "allocation table")
        let batmap = try batmap(source, footer, layout, isWritable: isWritable)
        let end = try headerEnd(source.byteCount, footer, header, layout, batmap)
        let map = try VHDMap(layout, table: table, count: Int(blocks), headerEnd: end)
        return Sparse(header: header, map: map, batmap: batmap)
    }

    /// Only blktap's images have one, and its early ones not all (libvhd's `vhd_has_batmap`).
    package static func batmap(
        _ source: some ImageSource,
        _ footer: VHDFooter,
        _ layout: VHDLayout,
        isWritable: Bool
    ) throws(ImageFault) -> VHDBatmap? {
        guard footer.isFromTapdisk, footer.creatorVersion > 1 else { return nil }
        // Whoever writes must know where the headers end.
        let isNeeded = isWritable && footer.creatorVersion >= 0x10002
        let place = layout.tableOffset.addingReportingOverflow(layout.tableByteCount).partialValue
        let head: [UInt8]
        do throws(ImageFault) {
            head = try bytes(source, place, UInt64(VHDBatmap.headerByteCount), "batmap")
        } catch {
            if isNeeded { throw error }
            return nil
        }
        guard var batmap = VHDBatmap(header: head) else {
            if isNeeded { throw ImageFault(.corrupt, "batmap: no 'tdbatmap' at byte \(place)") }
            return nil
        }
        let size = UInt64(batmap.mapSectors) * 512
        guard size >= VHDBatmap.summedByteCount(footer.currentSize), size <= VHDMap.tableLimit,
            batmap.mapOffset % 512 == 0, batmap.mapOffset >= 512
        else { throw ImageFault(.corrupt, "batmap: \(size) bytes at byte \(batmap.mapOffset) cannot be") }
        batmap.map = try bytes(source, batmap.mapOffset, size, "batmap")
        batmap.isTrusted = batmap.checksum == batmap.computedChecksum(footer.currentSize)
        return batmap
    }

    /// The first byte behind all headers, tables and locators.
    private static func headerEnd(
        _ byteCount: UInt64,
        _ footer: VHDFooter,
        _ header: VHDHeader,
        _ layout: VHDLayout,
        _ batmap: VHDBatmap?
    ) throws(ImageFault) -> UInt64 {
        var parts: [(offset: UInt64, count: UInt64)] = [
            (footer.dataOffset, UInt64(VHDHeader.byteCount)), (layout.tableOffset, layout.tableByteCount),
        ]
        if let batmap {
            parts.append((layout.tableOffset + layout.tableByteCount, UInt64(VHDBatmap.headerByteCount)))
            parts.append((batmap.mapOffset, UInt64(batmap.mapSectors) * 512))
        }
        // A room of no known unit is the checker's business.
        parts += header.locators.map { ($0.dataOffset, $0.byteCount ?? 0) }
        var end: UInt64 = 0
        for part in parts {
            guard let range = DiskRange(checking: part.offset, count: part.count), range.end <= byteCount else {
                throw ImageFault(
                    .corrupt,
                    "headers: \(part.count) bytes at byte \(part.offset) are not inside the file"
                )
            }
            end = max(end, range.end)
        }
        return end
    }
}
