// Opening an image and finding out what it is: the checks that stand between a disk line and a disk.

internal import CLinux
internal import Glibc
internal import HostIO
internal import SharedRing
internal import SystemPackage

/// An image that is open and locked, and what the kernel says of it.
struct ImageProbe {
    let path: String
    let options: ImageOptions
    let file: OpenFile
    private let kernel: linux_file_facts
    private let kind: ImageFacts.Kind

    var identity: FileIdentity { FileIdentity(device: kernel.device, inode: kernel.inode) }
    private var isReadOnly: Bool { options.access == .readOnly }

    /// Opens and locks.
    init(_ path: String, _ options: ImageOptions, namesHolder: Bool) throws(ImageFailure) {
        var status = stat()
        guard unsafe stat(path, &status) == 0 else {
            throw .opening(path, writing: options.access != .readOnly, Errno(rawValue: errno))
        }
        let found = FileIdentity(device: UInt64(status.st_dev), inode: UInt64(status.st_ino))
        let kind = try ImageProbe.kind(UInt32(status.st_mode), path)
        var flags = options.access == .readOnly ? O_RDONLY : O_RDWR
        // Keeps the kernel's users out as well: file systems, volume groups, its own block backend.
        if kind == .blockDevice && options.access == .exclusive { flags |= O_EXCL }
        let file: OpenFile
        do throws(Errno) {
            file = try OpenFile(path: path, flags: flags)
        } catch {
            if error == .resourceBusy, namesHolder,
                let holder = LockHolder.find(device: found.device, inode: found.inode)
            {
                throw .locked(path, by: holder)
            }
            throw .opening(path, writing: options.access != .readOnly, error)
        }
        try self.init(path, options, reusing: file)
        try lock(namesHolder: namesHolder)
    }

    /// Asks about a file that is open and locked already.
    init(_ path: String, _ options: ImageOptions, reusing file: OpenFile) throws(ImageFailure) {
        var kernel = linux_file_facts()
        let status = unsafe linux_file_facts(file.descriptor, &kernel)
        if status != 0 { throw .opening(path, writing: options.access != .readOnly, Errno(rawValue: status)) }
        self.path = path
        self.options = options
        self.file = file
        self.kernel = kernel
        kind = try ImageProbe.kind(kernel.mode, path)
    }

    private static func kind(_ mode: UInt32, _ path: String) throws(ImageFailure) -> ImageFacts.Kind {
        switch mode & 0o170000 {
        case 0o100000: return .file
        case 0o060000: return .blockDevice
        case 0o040000: throw ImageFailure(path, .wrongKind, "\(path): is a directory; name an image file in it")
        default: throw ImageFailure(path, .wrongKind, "\(path): is neither a file nor a block device")
        }
    }

    private func lock(namesHolder: Bool) throws(ImageFailure) {
        if options.access == .shared { return }
        let status = linux_lock_open_file(file.descriptor, isReadOnly ? 0 : 1)
        switch Errno(rawValue: status) {
        case Errno(rawValue: 0): return
        case .resourceTemporarilyUnavailable, .permissionDenied:
            let holder = namesHolder ? LockHolder.find(device: kernel.device, inode: kernel.inode) : nil
            throw .locked(path, by: holder)
        case let error:
            throw ImageFailure(path, .system(error), "\(path): cannot be locked: \(error); mode w! does without")
        }
    }

    /// The facts as they are now.
    func measure() throws(ImageFailure) -> ImageFacts {
        let facts = kind == .file ? try measureFile() : try measureDevice()
        let block = UInt64(facts.logicalBlockSize)
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
        // What a network file system calls a block is no sector.
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

    /// Tries it behind the end of the file, where there is nothing to lose.
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

    /// A number that sysfs knows of the device. A partition's queue is its disk's.
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

    /// Switches direct I/O on for the open file where each block of the disk can be moved that way.
    func enableDirectIO(_ facts: ImageFacts) -> DirectIO {
        if !options.wantsDirectIO { return .notUsed("it is switched off") }
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
