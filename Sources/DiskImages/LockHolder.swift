// Who holds the lock of an image: found in /proc, since the kernel does not say for locks of open files.

internal import CLinux
internal import Glibc
internal import HostIO

/// The process that keeps an image locked.
public struct LockHolder: Equatable, Sendable, CustomStringConvertible {
    public let process: Int32
    /// The program's name, as the kernel keeps it.
    public let program: String
    /// The domain that it works for, if its command line says so.
    public let domain: UInt16?
    /// The device, if it is this process's own.
    public let device: String?

    public var description: String {
        var text = "\(program) (pid \(process)"
        if let domain { text += ", domain \(domain)" }
        if let device { text += ", device \(device)" }
        return text + ")"
    }

    /// Looks for an open file of the same inode that has a lock. Reads all of /proc/PID/fdinfo: off the loops.
    static func find(device: UInt64, inode: UInt64) -> LockHolder? {
        var reader: LockHolder?
        for process in entries("/proc").compactMap({ Int32($0) }) {
            for number in entries("/proc/\(process)/fd") {
                var status = stat()
                guard unsafe stat("/proc/\(process)/fd/\(number)", &status) == 0,
                    status.st_dev == device, status.st_ino == inode
                else { continue }
                let locks = contents("/proc/\(process)/fdinfo/\(number)").split(separator: "\n")
                    .filter { $0.hasPrefix("lock:") }
                if locks.isEmpty { continue }
                let holder = LockHolder(process: process, of: FileIdentity(device: device, inode: inode))
                if locks.contains(where: { $0.contains("WRITE") }) { return holder }
                reader = reader ?? holder
            }
        }
        return reader
    }

    private init(process: Int32, of file: FileIdentity) {
        self.process = process
        let name = LockHolder.contents("/proc/\(process)/comm").prefix { $0 != "\n" }
        program = name.isEmpty ? "a process" : String(name)
        domain = LockHolder.domain(in: LockHolder.contents("/proc/\(process)/cmdline").split(separator: "\0"))
        device = process == getpid() ? ImageLease.owner(of: file) : nil
    }

    /// The domain in the arguments of a worker (`--domain 7`) or of QEMU (`-xen-domid 7`).
    static func domain(in arguments: [Substring]) -> UInt16? {
        for (position, argument) in arguments.enumerated() {
            if argument.hasPrefix("--domain=") { return UInt16(argument.dropFirst("--domain=".count)) }
            if argument == "--domain" || argument == "-xen-domid", position + 1 < arguments.count {
                return UInt16(arguments[position + 1])
            }
        }
        return nil
    }

    private static func entries(_ path: String) -> [String] {
        guard let directory = unsafe opendir(path) else { return [] }
        defer { _ = unsafe closedir(directory) }
        var names: [String] = []
        while let entry = unsafe readdir(directory) {
            // SAFETY: d_name is a NUL-terminated array inside the entry, valid until the next readdir.
            let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) {
                unsafe $0.withMemoryRebound(to: CChar.self, capacity: 256) { unsafe String(cString: $0) }
            }
            if name.first != "." { names.append(name) }
        }
        return names
    }

    private static func contents(_ path: String) -> String {
        guard let file = try? OpenFile(path: path, flags: O_RDONLY) else { return "" }
        var bytes = [UInt8](repeating: 0, count: 4096)
        let count = unsafe read(file.descriptor, &bytes, bytes.count)
        return String(decoding: bytes.prefix(max(0, count)), as: UTF8.self)
    }
}
