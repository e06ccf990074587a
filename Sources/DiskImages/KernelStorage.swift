// The host's storage as Linux shows it: stat(2), /sys/dev/block, loop ioctls, and mountinfo.

internal import CLinux
internal import Glibc
internal import HostIO
internal import SystemPackage

/// The running kernel's storage. Tests have other folders.
struct KernelStorage: HostStorage {
    var system = "/sys"
    var mountTable = "/proc/self/mountinfo"
    var devices = "/dev"

    func look(at path: String) throws(Errno) -> PathFacts {
        var status = stat()
        guard unsafe stat(path, &status) == 0 else { throw Errno(rawValue: errno) }
        let kind: PathFacts.Kind =
            switch status.st_mode & 0o170000 {
            case 0o100000: .file
            case 0o060000: .blockDevice
            case 0o040000: .directory
            default: .other
            }
        let node: StorageNode =
            kind == .blockDevice
            ? .device(UInt64(status.st_rdev))
            : .file(fileSystem: UInt64(status.st_dev), inode: UInt64(status.st_ino))
        return PathFacts(kind: kind, node: node, isWritable: status.st_mode & 0o222 != 0)
    }

    func device(_ number: UInt64) -> StorageDevice? {
        let folder = "\(system)/dev/block/\(linux_major(number)):\(linux_minor(number))"
        guard let sectors = KernelText.number(in: "\(folder)/size") else { return nil }
        let name = KernelText.lines(of: "\(folder)/uevent").first { $0.hasPrefix("DEVNAME=") }?.dropFirst(8)
        var device = StorageDevice(path: "\(devices)/\(name ?? "")", byteCount: sectors &* 512)
        if KernelText.number(in: "\(folder)/partition") != nil, let start = KernelText.number(in: "\(folder)/start"),
            let whole = KernelStorage.number(in: "\(folder)/../dev")
        {
            device.partition = (whole, start &* 512)
        }
        device.backing = backing(folder, device.path)
        device.slaves = KernelText.names(in: "\(folder)/slaves").sorted()
            .compactMap { KernelStorage.number(in: "\(folder)/slaves/\($0)/dev") }
        return device
    }

    /// What a loop device stands on. sysfs has the file's name, which may lie in another mount namespace or be another
    /// file by now; the device itself has the inode.
    private func backing(_ folder: String, _ path: String) -> (node: StorageNode, offset: UInt64)? {
        guard let offset = KernelText.number(in: "\(folder)/loop/offset") else { return nil }
        let name = KernelText.lines(of: "\(folder)/loop/backing_file").first ?? ""
        let named = try? look(at: String(name)).node
        var inode: StorageNode?
        if let file = try? OpenFile(path: path, flags: O_RDONLY | O_NONBLOCK) {
            var facts = linux_loop_facts()
            if unsafe linux_loop_facts(file.descriptor, &facts) == 0 {
                inode = .file(fileSystem: facts.device, inode: facts.inode)
            }
        }
        // A loop device on a block device: not its node's inode identifies it, but its number.
        if case .device? = named { return named.map { ($0, offset) } }
        return (inode ?? named).map { ($0, offset) }
    }

    /// `7:1` as sysfs's `dev` has it.
    private static func number(in path: String) -> UInt64? {
        let parts = (KernelText.lines(of: path).first ?? "").split(separator: ":").compactMap { UInt32($0) }
        return parts.count == 2 ? linux_device(parts[0], parts[1]) : nil
    }

    /// mountinfo: `36 35 98:0 /root /mount/point options [optional]… - type source options` (proc_pid_mountinfo(5)).
    func mounts() -> [StorageMount] {
        KernelText.lines(of: mountTable).compactMap { line in
            let fields = line.split(separator: " ")
            guard let dash = fields.firstIndex(of: "-"), fields.count > dash + 3, dash >= 6 else { return nil }
            let numbers = fields[2].split(separator: ":").compactMap { UInt32($0) }
            guard numbers.count == 2 else { return nil }
            // Btrfs and others give their file systems numbers that no device has; then the source identifies the
            // device.
            let source = try? look(at: KernelStorage.unescaped(fields[dash + 2]))
            var node = StorageNode.device(linux_device(numbers[0], numbers[1]))
            if numbers[0] == 0 {
                guard let source, source.kind == .blockDevice else { return nil }
                node = source.node
            }
            let isReadOnly = fields[dash + 3].split(separator: ",").contains("ro")
            return StorageMount(node: node, point: KernelStorage.unescaped(fields[4]), isReadOnly: isReadOnly)
        }
    }

    /// Blanks and backslashes are octal there: `\040`.
    private static func unescaped(_ text: Substring) -> String {
        var bytes: [UInt8] = []
        var rest = Array(text.utf8)[...]
        while let byte = rest.popFirst() {
            if byte == 0x5C, rest.count >= 3,
                let code = UInt8(String(decoding: rest.prefix(3), as: UTF8.self), radix: 8)
            {
                bytes.append(code)
                rest = rest.dropFirst(3)
            } else {
                bytes.append(byte)
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}

/// Small files of /proc and /sys.
enum KernelText {
    /// Empty where it cannot be read.
    static func contents(_ path: String, limit: Int = 1 << 20) -> String {
        guard let file = try? OpenFile(path: path, flags: O_RDONLY) else { return "" }
        var all: [UInt8] = []
        var bytes = [UInt8](repeating: 0, count: 4096)
        while all.count < limit {
            let count = unsafe read(file.descriptor, &bytes, bytes.count)
            if count <= 0 { break }
            all += bytes.prefix(count)
        }
        return String(decoding: all, as: UTF8.self)
    }

    static func lines(of path: String) -> [Substring] { contents(path).split(separator: "\n") }
    static func number(in path: String) -> UInt64? { lines(of: path).first.flatMap { UInt64($0) } }
    static func names(in path: String) -> [String] { (try? Files.names(in: FilePath(path))) ?? [] }
}
