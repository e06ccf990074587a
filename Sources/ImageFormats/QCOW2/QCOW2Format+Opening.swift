// Opening a qcow2 image for writing: what must be refused, and what must be said in the image first.

internal import SystemPackage

extension QCOW2Format {
    /// Opens an image to be written. What other programs must know of that is durable in the image when this returns.
    /// - Parameters:
    ///   - canGrow: the file grows when something is written behind its end; false for a block device.
    ///   - canPunch: a file's blocks can be given back to the host, and read as zeroes then.
    public static func open(
        forWriting target: some ImageTarget,
        canGrow: Bool = true,
        canPunch: Bool = true
    ) throws(ImageFault) -> QCOW2Format {
        let header = try QCOW2Header(reading: target)
        if header.isCorrupt {
            throw ImageFault(.corrupt, "is marked as corrupt; xenback image check --repair, or open it with access=ro")
        }
        if header.isDirty {
            let text =
                "was not closed by a program that counts lazily; xenback image check --repair, or open it with access=ro"
            throw ImageFault(.corrupt, text)
        }
        do throws(Errno) {
            try markBitmaps(header, target)
            let unknown = header.autoclear & ~QCOW2Header.Autoclear.bitmaps
            if unknown != 0 {
                var bytes = [UInt8](repeating: 0, count: 8)
                bytes.putBigEndian(header.autoclear & QCOW2Header.Autoclear.bitmaps, at: 0)
                try target.write(bytes, at: QCOW2Header.Field.autoclear)
                try target.flush()
            }
        } catch {
            throw ImageFault(.storage(error), "cannot be prepared for writing: \(error)")
        }
        let space = QCOW2Space(canGrow: canGrow, canPunch: canPunch, firstCluster: header.clusterBytes)
        return QCOW2Format(header, fileBytes: target.byteCount, space: space)
    }

    /// Marks all bitmaps as in use: they do not follow what is written from now on, and nobody may trust them.
    private static func markBitmaps(_ header: QCOW2Header, _ target: some ImageTarget) throws(Errno) {
        guard let bitmaps = header.bitmaps, header.autoclear & QCOW2Header.Autoclear.bitmaps != 0 else { return }
        let directory = try target.read(at: bitmaps.directoryOffset, count: Int(bitmaps.directoryBytes))
        var position = 0
        var isChanged = false
        for _ in 0..<bitmaps.count {
            guard let flags: UInt32 = directory.bigEndian(at: position + 12),
                let name: UInt16 = directory.bigEndian(at: position + 18),
                let extra: UInt32 = directory.bigEndian(at: position + 20), extra <= 1 << 20
            else { break }
            if flags & 1 == 0 {
                var bytes = [UInt8](repeating: 0, count: 4)
                bytes.putBigEndian(flags | 1, at: 0)
                try target.write(bytes, at: bitmaps.directoryOffset &+ UInt64(position) &+ 12)
                isChanged = true
            }
            position += (24 + Int(extra) + Int(name) + 7) & ~7
        }
        if isChanged { try target.flush() }
    }
}
