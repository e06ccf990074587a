// Who holds the lock of an image: found in /proc, since the kernel does not say for locks of open files.

internal import CLinux
internal import Glibc
internal import HostIO
internal import SystemPackage

/// The process that keeps an image locked.
public struct LockHolder: Equatable, Sendable, CustomStringConvertible {
    public let process: Int32
    /// The program's name, as the kernel keeps it.
    public let program: String
    /// The domain that it serves, if its command line says so.
    public let domain: UInt16?
    /// The device, if it is this process's own.
    public let device: String?

    public var description: String {
        var text = "\(program) (pid \(process)"
        if let domain { text += ", domain \(domain)" }
        if let device { text += ", device \(device)" }
        return text + ")"
    }

    /// A process and what it has locked.
    struct Found {
        let holder: LockHolder
        /// Byte ranges, of all its locks on one open file.
        let ranges: [ClosedRange<Int64>]

        func holds(_ range: ClosedRange<Int64>) -> Bool { ranges.contains { $0.overlaps(range) } }
        /// Whether one of its locks lies inside.
        func holdsOne(within range: ClosedRange<Int64>) -> Bool {
            ranges.contains { range.contains($0.lowerBound) && range.contains($0.upperBound) }
        }
    }

    /// All open files of others that have locks on the same inode, writers first. Reads all of /proc/PID/fdinfo: not
    /// for a loop.
    static func all(of file: OpenFile) -> [Found] {
        var status = stat()
        guard unsafe fstat(file.descriptor, &status) == 0 else { return [] }
        return all(of: FileIdentity(device: UInt64(status.st_dev), inode: UInt64(status.st_ino)), but: file.descriptor)
    }

    /// - Parameter own: a descriptor of this process to ignore.
    static func all(of identity: FileIdentity, but own: CInt = -1) -> [Found] {
        var readers: [Found] = []
        var writers: [Found] = []
        for process in KernelText.names(in: "/proc").compactMap({ Int32($0) }) {
            for number in KernelText.names(in: "/proc/\(process)/fd") where process != getpid() || CInt(number) != own {
                var status = stat()
                guard unsafe stat("/proc/\(process)/fd/\(number)", &status) == 0,
                    status.st_dev == identity.device, status.st_ino == identity.inode
                else { continue }
                let locks = KernelText.lines(of: "/proc/\(process)/fdinfo/\(number)").filter { $0.hasPrefix("lock:") }
                if locks.isEmpty { continue }
                let holder = LockHolder(process: process, of: identity)
                let found = Found(holder: holder, ranges: locks.compactMap(range))
                if locks.contains(where: { $0.contains("WRITE") }) {
                    writers.append(found)
                } else {
                    readers.append(found)
                }
            }
        }
        return writers + readers
    }

    /// `lock: 1: OFDLCK ADVISORY READ -1 fe:00:4711 100 101`; the last byte may be `EOF`. flock(2)'s locks are of no
    /// interest here.
    static func range(_ line: Substring) -> ClosedRange<Int64>? {
        let fields = line.split { $0 == " " || $0 == "\t" }
        guard fields.count == 9, fields[2] != "FLOCK", let first = Int64(fields[7]) else { return nil }
        let last = fields[8] == "EOF" ? Int64.max : Int64(fields[8]) ?? first
        return first...max(first, last)
    }

    private init(process: Int32, of file: FileIdentity) {
        self.process = process
        let name = KernelText.contents("/proc/\(process)/comm").prefix { $0 != "\n" }
        program = name.isEmpty ? "a process" : String(name)
        domain = LockHolder.domain(in: KernelText.contents("/proc/\(process)/cmdline").split(separator: "\0"))
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
}
