// New VHDs, laid out as blktap does: every byte where its tools, XenServer's and Hyper-V's expect it.

/// What a new sparse VHD is.
package struct VHDDraftOptions: Sendable {
    /// The disk's size in bytes, a multiple of 512.
    package var byteCount: UInt64
    /// The size up to which it can be grown without moving anything; 0: the disk's.
    package var largestByteCount: UInt64 = 0
    package var identifier: VHDIdentifier
    package var time: VHDTime
    package var parent: VHDParent?

    package init(
        byteCount: UInt64,
        identifier: VHDIdentifier = .random(),
        time: VHDTime = .now,
        parent: VHDParent? = nil
    ) {
        self.byteCount = byteCount
        self.identifier = identifier
        self.time = time
        self.parent = parent
    }
}

/// The parent of a new differencing VHD.
package struct VHDParent: Sendable {
    /// Its path relative to the child's directory: `p.vhd`, `../base/p.vhd`.
    package var relativePath: String
    /// null for a raw image.
    package var identifier: VHDIdentifier
    /// When it was changed last.
    package var time: VHDTime

    package init(relativePath: String, identifier: VHDIdentifier, time: VHDTime) {
        self.relativePath = relativePath
        self.identifier = identifier
        self.time = time
    }
}

extension VHDFormat {
    /// 2040 GiB, as XenServer and QEMU have it: with its bitmaps a full image still has addresses for all blocks.
    package static let largestDisk: UInt64 = 2040 << 30

    private static func check(_ byteCount: UInt64) throws(ImageFault) {
        guard byteCount > 0, byteCount % 512 == 0 else {
            throw ImageFault(.limit, "a disk of \(byteCount) bytes is not made of sectors")
        }
        guard byteCount <= largestDisk else {
            throw ImageFault(.limit, "\(byteCount) bytes: a VHD has 2040 GiB at most; take qcow2 for a larger disk")
        }
    }

    /// A fixed image: the disk's bytes, all zeros, and the footer.
    package static func draft(
        fixed byteCount: UInt64,
        identifier: VHDIdentifier = .random(),
        time: VHDTime = .now
    ) throws(ImageFault) -> ImageDraft {
        try check(byteCount)
        let footer = VHDFooter(.fixed, byteCount: byteCount, identifier: identifier, time: time)
        var draft = ImageDraft(byteCount: byteCount + UInt64(VHDFooter.byteCount))
        draft.put(footer.bytes, at: byteCount)
        return draft
    }

    /// A dynamic image, or a differencing one if it has a parent: no block, so that all reads as zeros or as the parent.
    package static func draft(_ options: VHDDraftOptions) throws(ImageFault) -> ImageDraft {
        let largest = max(options.byteCount, options.largestByteCount)
        try check(options.byteCount)
        try check(largest)
        let kind: VHDKind = options.parent == nil ? .dynamic : .differencing
        let footer = VHDFooter(kind, byteCount: options.byteCount, identifier: options.identifier, time: options.time)
        let blockSize = UInt64(VHDHeader.usualBlockSize)
        let entries = UInt32(truncatingIfNeeded: (largest + blockSize - 1) / blockSize)
        var header = VHDHeader(entries: entries)
        let layout = VHDLayout(header)
        let batmapHead = layout.tableOffset + layout.tableByteCount
        var batmap = VHDBatmap(offset: batmapHead + UInt64(VHDBatmap.headerByteCount), entries: entries)
        batmap.seal(options.byteCount)
        var end = batmap.mapOffset + UInt64(batmap.map.count)
        var draft = ImageDraft(byteCount: 0)
        if let parent = options.parent {
            try put(parent, into: &header, &draft, &end)
        }
        draft.put(footer.bytes, at: 0)
        draft.put(header.bytes, at: footer.dataOffset)
        // Entries are unused; what pads the last sector is zero.
        var table = [UInt8](repeating: 0xFF, count: Int(entries) * 4)
        table.append(contentsOf: repeatElement(0, count: Int(layout.tableByteCount) - table.count))
        draft.put(table, at: layout.tableOffset)
        draft.put(batmap.fields.bytes, at: batmapHead)
        draft.put(footer.bytes, at: end)
        draft.byteCount = end + UInt64(VHDFooter.byteCount)
        return draft
    }

    /// The platforms whose locators are written, in blktap's order; all hold the relative path.
    package static let writtenPlatforms: [VHDPlatform] = [.macURL, .windowsAbsolute, .windowsRelative]

    private static func put(
        _ parent: VHDParent,
        into header: inout VHDHeader,
        _ draft: inout ImageDraft,
        _ end: inout UInt64
    ) throws(ImageFault) {
        header.parent = parent.identifier
        header.parentTime = parent.time
        try name(parent.relativePath, in: &header)
        for (index, platform) in writtenPlatforms.enumerated() {
            let text = VHDLocator.text(locatorPath(parent.relativePath, platform), for: platform)
            let space = (UInt64(text.count) + 511) / 512 * 512
            header[locator: index] = VHDLocator(
                rawCode: platform.rawValue,
                dataSpace: UInt32(truncatingIfNeeded: space),
                dataLength: UInt32(truncatingIfNeeded: text.count),
                reserved: 0,
                dataOffset: end
            )
            draft.put(text, at: end)
            end += space
        }
    }

    /// `./p.vhd` for a parent in the same directory, as blktap writes it; one elsewhere begins with `../`.
    package static func locatorPath(_ path: String, _ platform: VHDPlatform) -> String {
        path.hasPrefix("../") || path.hasPrefix("./") || path.hasPrefix("/") ? path : "./" + path
    }

    /// Puts the last part of a parent's path into the header.
    package static func name(_ path: String, in header: inout VHDHeader) throws(ImageFault) {
        let name = path.split(separator: "/").last.map(String.init) ?? ""
        guard !name.isEmpty, name != "..", path.utf8.count < 4096, !path.utf8.contains(0) else {
            throw ImageFault(.limit, "'\(path)' cannot be the name of a parent")
        }
        // What Windows takes for a separator would come back as one.
        guard !path.utf8.contains(0x5C) else {
            throw ImageFault(.limit, "'\(path)': a parent's path in a VHD cannot have a backslash in it")
        }
        guard header.setParentName(name) else {
            throw ImageFault(.limit, "'\(name)': a parent's name in a VHD has 256 UTF-16 units at most")
        }
    }
}
