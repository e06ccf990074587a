// Who the parent of a differencing image is, as the image itself says.

internal import SystemPackage

extension VHDFormat {
    /// A differencing image's parent; nil for others.
    ///
    /// Names come from the locators whose encoding is known. Relative ones are first: a chain that was moved as a whole
    /// is found in its new place and not in the old one. The last resort is the parent's file name, beside the child.
    static func parent(_ structures: VHDStructures, _ source: some ImageSource) throws(ImageFault) -> ParentName? {
        guard structures.footer.kind == .differencing, let header = structures.sparse?.header else { return nil }
        let names = try parentNames(header, source)
        let isRaw = header.parent.isNull
        return ParentName(
            paths: names,
            format: isRaw ? "raw" : "vhd",
            identifier: isRaw ? nil : header.parent.bytes
        )
    }

    package static func parentNames(_ header: VHDHeader, _ source: some ImageSource) throws(ImageFault) -> [String] {
        var found: [String] = []
        for locator in header.locators where locator.platform?.hasPath == true {
            // One broken locator does not make the others useless; the checker names it.
            guard let range = try? locator.textRange(within: source.byteCount) else { continue }
            let text: [UInt8]
            do throws(Errno) { text = try source.read(at: range.lowerBound, count: range.count) } catch {
                throw ImageFault(.storage(error), "parent locator: cannot be read: \(error)")
            }
            found += locator.paths(of: text)
        }
        if let name = header.parentName, !name.isEmpty, !name.utf8.contains(0x2F) { found.append("./" + name) }
        let ordered = found.filter { !$0.hasPrefix("/") } + found.filter { $0.hasPrefix("/") }
        var seen: Set<String> = []
        return ordered.filter { $0.utf8.count < 4096 && seen.insert($0).inserted }
    }
}
