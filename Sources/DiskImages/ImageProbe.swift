// Opening an image and finding out what it is: the checks between a disk line and a disk.

internal import CLinux
internal import Glibc
internal import HostIO
internal import SharedRing
internal import SystemPackage

/// An image that is open and locked, and what the kernel says about it.
struct ImageProbe {
    let path: String
    let options: ImageOptions
    let file: OpenFile
    private let kernel: linux_file_facts
    private let kind: ImageFacts.Kind

    var identity: FileIdentity { FileIdentity(device: kernel.device, inode: kernel.inode) }
    private var isReadOnly: Bool { options.access == .readOnly }

    /// Refuses what is in use, opens and locks.
    init(_ site: DiskSite, _ options: ImageOptions, _ storage: some HostStorage, namesHolder: Bool) throws(ImageFailure)
    {
        if !options.isTakeover {
            try site.refuse(options, storage)
            // Root may write it all the same, but a golden image was made read-only for a reason (the script `block` of
            // the toolstack refuses it too).
            if options.access == .exclusive, !site.isDevice, !site.isWritable {
                throw ImageFailure(
                    site.name,
                    .notPermitted,
                    ImageProbe.readOnlyText(site.name, "has no write permission")
                )
            }
        }
        let file = try ImageProbe.open(site, options, storage, namesHolder: namesHolder)
        try self.init(site.name, options, reusing: file)
        guard node == site.node else {
            throw ImageFailure(site.name, .missing, "\(site.name): was replaced by another file just now; try again")
        }
        if site.isDevice, options.access != .readOnly, linux_is_read_only_device(file.descriptor) == 1 {
            throw ImageFailure(site.name, .notPermitted, ImageProbe.readOnlyText(site.name, "is a read-only device"))
        }
        try ImageLocks.take(file, site.name, options, namesHolder: namesHolder)
    }

    private static func readOnlyText(_ path: String, _ why: String) -> String {
        "\(path): \(why), so a guest may not have it for writing; add 'access=ro' to the disk line"
    }

    private static func open(
        _ site: DiskSite,
        _ options: ImageOptions,
        _ storage: some HostStorage,
        namesHolder: Bool
    ) throws(ImageFailure) -> OpenFile {
        let writes = options.access != .readOnly
        var flags = writes ? O_RDWR : O_RDONLY
        // Also excludes the kernel's own users: file systems, volume groups, its block backend.
        if site.isDevice && options.access == .exclusive { flags |= O_EXCL }
        do throws(Errno) {
            do throws(Errno) {
                return try OpenFile(path: site.path, flags: flags)
            } catch .resourceBusy where site.isShared(withSameGuest: options, storage) {
                // Only one open file can have the device exclusively.
                return try OpenFile(path: site.path, flags: flags & ~O_EXCL)
            }
        } catch {
            if error == .resourceBusy, namesHolder, let holder = ImageProbe.holder(of: site) {
                throw .locked(site.name, by: holder)
            }
            // Some drivers refuse it here (a write-protected disk), others at each write.
            if writes, site.isDevice, error == .readOnlyFileSystem || error == .permissionDenied,
                let reading = try? OpenFile(path: site.path, flags: O_RDONLY | O_NONBLOCK),
                linux_is_read_only_device(reading.descriptor) == 1
            {
                throw ImageFailure(site.name, .notPermitted, readOnlyText(site.name, "is a read-only device"))
            }
            throw .opening(site.name, writing: writes, error)
        }
    }

    private static func holder(of site: DiskSite) -> LockHolder? {
        var status = stat()
        guard unsafe stat(site.path, &status) == 0 else { return nil }
        return LockHolder.all(of: FileIdentity(device: UInt64(status.st_dev), inode: UInt64(status.st_ino))).first?
            .holder
    }

    private var node: StorageNode {
        kind == .blockDevice ? .device(kernel.special) : .file(fileSystem: kernel.device, inode: kernel.inode)
    }

    /// For a file that is open and locked already.
    init(_ path: String, _ options: ImageOptions, reusing file: OpenFile) throws(ImageFailure) {
        var kernel = linux_file_facts()
        let status = unsafe linux_file_facts(file.descriptor, &kernel)
        if status != 0 { throw .opening(path, writing: options.access != .readOnly, Errno(rawValue: status)) }
        self.path = path
        self.options = options
        self.file = file
        self.kernel = kernel
        kind = kernel.mode & 0o170000 == 0o060000 ? .blockDevice : .file
    }

    /// The facts as they are now.
    func measure() throws(ImageFailure) -> ImageFacts {
        let facts = kind == .file ? try measureFile() : try measureDevice()
        let block = UInt64(facts.logicalBlockSize)
        if options.isContainer { return facts }
        if facts.byteCount == 0 {
            let cure = kind == .file ? "give it a size, as with: truncate -s 10G \(path)" : "is there a medium in it?"
            throw ImageFailure(path, .size, "\(path): is empty; \(cure)")
        }
        if facts.byteCount % block != 0 {
            let cure = kind == .file ? "; to add what is missing: truncate -s %\(block) \(path)" : ""
            let text =
                "\(path): its size, \(facts.byteCount) bytes, is not a multiple of the disk's block, \(block)\(cure)"
            throw ImageFailure(path, .size, text)
        }
        return facts
    }

    private func logicalBlockSize(atLeast own: Int) throws(ImageFailure) -> Int {
        let wanted = options.logicalBlockSize ?? own
        guard wanted >= own, (512...65536).contains(wanted), wanted & (wanted - 1) == 0 else {
            let text = "\(path): the disk's block cannot be \(wanted) bytes; use a power of two from \(own) to 65536"
            throw ImageFailure(path, .size, text)
        }
        return wanted
    }

    private func measureFile() throws(ImageFailure) -> ImageFacts {
        let logical = try logicalBlockSize(atLeast: 512)
        // The block size of a network file system is not a sector size.
        let unit = kernel.block_size.nonzeroBitCount == 1 ? Int(min(max(kernel.block_size, 512), 4096)) : 4096
        return ImageFacts(
            kind: .file,
            byteCount: kernel.size,
            logicalBlockSize: logical,
            physicalBlockSize: max(logical, unit),
            canDiscard: !isReadOnly && canPunchHoles,
            canDiscardSecurely: false,
            discardGranularity: max(logical, unit),
            discardAlignment: 0
        )
    }

    /// Tries it beyond the end of the file, where there is no data.
    private var canPunchHoles: Bool {
        let size = Int64(clamping: kernel.size)
        let status = linux_punch_hole(file.descriptor, size, 4096)
        return status == 0
    }

    private func measureDevice() throws(ImageFailure) -> ImageFacts {
        var device = linux_block_facts()
        let status = unsafe linux_block_facts(file.descriptor, &device)
        if status != 0 { throw .opening(path, writing: !isReadOnly, Errno(rawValue: status)) }
        let logical = try logicalBlockSize(atLeast: Int(max(device.logical, 512)))
        return ImageFacts(
            kind: .blockDevice,
            byteCount: device.size,
            logicalBlockSize: logical,
            physicalBlockSize: max(logical, Int(device.physical)),
            canDiscard: !isReadOnly && device.discards != 0,
            canDiscardSecurely: !isReadOnly && device.discards_securely != 0,
            discardGranularity: max(logical, attribute("discard_granularity", ofQueue: true)),
            discardAlignment: attribute("discard_alignment", ofQueue: false)
        )
    }

    /// A number of the device in sysfs. A partition's queue is its disk's.
    private func attribute(_ name: String, ofQueue: Bool) -> Int {
        let numbers = "\(linux_major(kernel.special)):\(linux_minor(kernel.special))"
        let folders = ofQueue ? ["queue/", "../queue/"] : [""]
        for folder in folders {
            guard let file = try? OpenFile(path: "/sys/dev/block/\(numbers)/\(folder)\(name)", flags: O_RDONLY) else {
                continue
            }
            var bytes = [UInt8](repeating: 0, count: 32)
            let count = unsafe read(file.descriptor, &bytes, bytes.count)
            let text = String(decoding: bytes.prefix(max(0, count)).prefix { $0 != 10 }, as: UTF8.self)
            return max(0, Int(text) ?? 0)
        }
        return 0
    }

    /// Enables direct I/O for the open file if every block of the disk can be transferred that way.
    func enableDirectIO(_ facts: ImageFacts) -> DirectIO {
        if !options.allowsDirectIO { return .notUsed("it is switched off") }
        let logical = facts.logicalBlockSize
        if kernel.direct_offset == 0 { return .notUsed("\(fileSystem) cannot do it with this file") }
        if Int(kernel.direct_offset) > logical {
            return .notUsed(
                "\(fileSystem) needs blocks of \(kernel.direct_offset) bytes and the disk's have \(logical)"
            )
        }
        if kernel.direct_memory > 512 {
            return .notUsed("\(fileSystem) needs memory aligned to \(kernel.direct_memory) bytes")
        }
        if linux_use_direct_io(file.descriptor, 1) != 0 { return .notUsed("\(fileSystem) has none") }
        if kernel.direct_offset < 0 && !readsDirectly(logical) {
            _ = linux_use_direct_io(file.descriptor, 0)
            return .notUsed("\(fileSystem) needs blocks of more than \(logical) bytes")
        }
        return .used
    }

    /// Tries a read of one block that is aligned to nothing larger.
    private func readsDirectly(_ count: Int) -> Bool {
        guard let pages = try? PrivatePages(byteCount: 2 * count) else { return false }
        // SAFETY: the pages outlive the call.
        return unsafe pread(file.descriptor, pages.unsafeAddress(at: count, count: count), count, off_t(count)) >= 0
    }

    private var fileSystem: String {
        if kind == .blockDevice { return "the device" }
        return switch kernel.file_system {
        case 0xEF53: "ext4"
        case 0x5846_5342: "XFS"
        case 0x9123_683E: "Btrfs"
        case 0x0102_1994: "tmpfs"
        case 0x8584_58F6: "ramfs"
        case 0x794C_7630: "overlayfs"
        case 0x2FC1_2FC1: "ZFS"
        case 0x6969: "NFS"
        case 0x6573_5546: "FUSE"
        default: "the file system"
        }
    }
}
