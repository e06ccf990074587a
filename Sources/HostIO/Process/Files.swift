// Directory entries and small files: calls that the System library lacks.

internal import CLinux
public import SystemPackage

#if canImport(Glibc)
    internal import Glibc
#endif

/// Calls on directory entries and small files.
public enum Files {
    /// Makes a directory and its missing parents; no error if it is there.
    public static func makeDirectory(_ path: FilePath, permissions: FilePermissions) throws(Errno) {
        // SAFETY: the text lives for the call.
        if unsafe path.withPlatformString({ unsafe mkdir($0, permissions.rawValue) }) == 0 { return }
        switch errno {
        case EEXIST: return
        case ENOENT where !path.removingLastComponent().isEmpty && path.removingLastComponent() != path:
            try makeDirectory(path.removingLastComponent(), permissions: permissions)
            try makeDirectory(path, permissions: permissions)
        default: throw Errno(rawValue: errno)
        }
    }

    /// Makes sure that a directory is our own and that nobody else may enter it (mode 0700).
    /// - Throws: `EPERM` if it is somebody else's, `ENOTDIR` if it is no directory, or a link to one.
    public static func keepPrivate(_ path: FilePath) throws(Errno) {
        let directory = try OpenFile(path: path.string, flags: O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
        try keepPrivate(directory.descriptor, S_IRWXU)
    }

    /// Gives an open file or directory of our own these permissions, whoever made it.
    static func keepPrivate(_ descriptor: CInt, _ mode: mode_t) throws(Errno) {
        var status = stat()
        // SAFETY: `status` is a local of this call.
        guard unsafe fstat(descriptor, &status) == 0 else { throw Errno(rawValue: errno) }
        guard status.st_uid == geteuid() else { throw .notPermitted }
        if status.st_mode & 0o7777 != mode, fchmod(descriptor, mode) != 0 { throw Errno(rawValue: errno) }
    }

    /// Removes a file; no error if it is not there.
    public static func remove(_ path: FilePath) throws(Errno) {
        // SAFETY: the text lives for the call.
        if unsafe path.withPlatformString({ unsafe unlink($0) }) == 0 { return }
        if errno != ENOENT { throw Errno(rawValue: errno) }
    }

    /// The names in a directory, without `.` and `..`; empty if there is no such directory.
    public static func names(in path: FilePath) throws(Errno) -> [String] {
        let descriptor: CInt
        do throws(Errno) {
            descriptor = try HostDoor.open(path, flags: O_RDONLY | O_DIRECTORY)
        } catch Errno.noSuchFileOrDirectory {
            return []
        }
        // SAFETY: the stream takes the descriptor over and is closed before the call returns; an entry is read before the
        // next call on it.
        guard let stream = unsafe fdopendir(descriptor) else {
            close(descriptor)
            throw Errno(rawValue: errno)
        }
        defer { unsafe closedir(stream) }
        var names: [String] = []
        while let entry = unsafe readdir(stream) {
            let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) {
                unsafe $0.withMemoryRebound(to: CChar.self, capacity: 256) { unsafe String(cString: $0) }
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names
    }

    /// Opens a file, to be closed by the caller.
    /// - Parameter flags: of open(2); `O_CLOEXEC` is added.
    /// - Throws: the errors of open(2).
    public static func open(
        _ path: FilePath,
        _ flags: CInt,
        _ permissions: FilePermissions = .ownerReadWrite
    ) throws(Errno) -> FileDescriptor {
        FileDescriptor(rawValue: try HostDoor.open(path, flags: flags, permissions: permissions.rawValue))
    }

    /// The first `limit` bytes of an open file.
    public static func contents(of file: FileDescriptor, limit: Int) throws(Errno) -> [UInt8] {
        try errnoOnly {
            // SAFETY: the System library writes no more than the buffer holds and says how much it wrote.
            try unsafe [UInt8](unsafeUninitializedCapacity: limit) { buffer, count in
                count = try unsafe file.read(fromAbsoluteOffset: 0, into: UnsafeMutableRawBufferPointer(buffer))
            }
        }
    }

    /// The file's contents, whole.
    /// - Throws: `EFBIG` if it has more than `limit` bytes.
    public static func contents(of path: FilePath, limit: Int) throws(Errno) -> [UInt8] {
        let file = try open(path, O_RDONLY)
        defer { try? file.close() }
        let bytes = try contents(of: file, limit: limit + 1)
        guard bytes.count <= limit else { throw .fileTooLarge }
        return bytes
    }

    /// A pipe, closed in programs that we start unless it is given to them.
    /// - Throws: the errors of pipe2(2).
    public static func pipe() throws(Errno) -> (reading: OpenFile, writing: OpenFile) {
        var ends: (CInt, CInt) = (-1, -1)
        // SAFETY: the call writes two descriptors into a pair of them.
        let status = unsafe withUnsafeMutableBytes(of: &ends) {
            unsafe pipe2($0.baseAddress!.assumingMemoryBound(to: CInt.self), O_CLOEXEC)
        }
        guard status == 0 else { throw Errno(rawValue: errno) }
        return (OpenFile(adopting: ends.0), OpenFile(adopting: ends.1))
    }

    /// Writes `text`, whole, into a pipe or an open file.
    public static func write(_ text: String, to file: OpenFile) throws(Errno) {
        try errnoOnly { _ = try FileDescriptor(rawValue: file.descriptor).writeAll(text.utf8) }
    }

    /// Reads a line, waiting for it, and not a byte more.
    /// - Returns: the line without its end; nil at the end of the file and for a line of more than `limit` bytes.
    public static func line(of file: FileDescriptor, limit: Int) throws(Errno) -> String? {
        var line: [UInt8] = []
        while line.count <= limit {
            var byte: UInt8 = 0
            let count = try errnoOnly {
                // SAFETY: one byte into one byte.
                try unsafe withUnsafeMutableBytes(of: &byte) { try unsafe file.read(into: $0) }
            }
            if count == 0 { return nil }
            if byte == UInt8(ascii: "\n") { return String(decoding: line, as: UTF8.self) }
            line.append(byte)
        }
        return nil
    }

    /// Writes `text` with one write(2) into a file that exists, as the kernel's own files want it.
    public static func write(_ text: String, to path: FilePath) throws(Errno) {
        let file = try open(path, O_WRONLY)
        defer { try? file.close() }
        try errnoOnly { _ = try file.writeAll(text.utf8) }
    }

    /// Makes a file with this text.
    /// - Throws: `EEXIST` if it is there.
    public static func make(_ path: FilePath, _ text: String, permissions: FilePermissions) throws(Errno) {
        let file = try open(path, O_WRONLY | O_CREAT | O_EXCL, permissions)
        defer { try? file.close() }
        try errnoOnly { _ = try file.writeAll(text.utf8) }
    }

    /// Gives a file another name in its file system, in place of what had that name.
    public static func rename(_ path: FilePath, to new: FilePath) throws(Errno) {
        // SAFETY: both texts live for the call.
        let status = unsafe path.withPlatformString { old in
            unsafe new.withPlatformString { unsafe Glibc.rename(old, $0) }
        }
        if status != 0 { throw Errno(rawValue: errno) }
    }

    /// What distinguishes this file from another of the same name, such as a program before and after its upgrade:
    /// inode and time of change.
    public static func edition(of path: FilePath) throws(Errno) -> String {
        var status = stat()
        // SAFETY: the text and `status` live for the call.
        guard unsafe path.withPlatformString({ unsafe stat($0, &status) }) == 0 else { throw Errno(rawValue: errno) }
        return "\(status.st_ino).\(status.st_mtim.tv_sec).\(status.st_mtim.tv_nsec)"
    }

    /// What a symbolic link says.
    public static func target(ofLink path: FilePath) throws(Errno) -> String {
        var failure: CInt = 0
        // SAFETY: the kernel writes at most `count` bytes during the call and says how many.
        let bytes = unsafe [UInt8](unsafeUninitializedCapacity: 4096) { buffer, filled in
            guard let base = buffer.baseAddress else { return }
            let length = unsafe path.withPlatformString { unsafe readlink($0, base, buffer.count) }
            if length < 0 { failure = errno }
            filled = max(length, 0)
        }
        if failure != 0 { throw Errno(rawValue: failure) }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// Lets this process and its children open as many files as the host allows (RLIMIT_NOFILE: soft to hard).
    public static func raiseOpenLimit() {
        var limit = rlimit()
        // SAFETY: `limit` is a local of this call.
        guard unsafe getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return }
        limit.rlim_cur = limit.rlim_max
        _ = unsafe setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    }
}
