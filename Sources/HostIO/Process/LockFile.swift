// A file whose lock says that its writer lives, and whose text says who it is.

internal import CLinux
public import SystemPackage

#if canImport(Glibc)
    internal import Glibc
#endif

/// A lock file held by a living process: flock(2) on the open file, freed by the kernel when the process ends.
public final class LockFile: Sendable {
    private let descriptor: FileDescriptor

    /// Takes the lock and writes `text` into the file, which nobody else may read (mode 0600).
    /// - Throws: `EWOULDBLOCK` if another process holds it, `EPERM` if the file is somebody else's.
    public init(taking path: FilePath, text: String) throws(Errno) {
        let file = try Files.open(path, O_RDWR | O_CREAT | O_NOFOLLOW)
        do throws(Errno) {
            try Files.keepPrivate(file.rawValue, S_IRUSR | S_IWUSR)
        } catch {
            try? file.close()
            throw error
        }
        // `look` holds the lock for an instant.
        var attempts = 40
        while flock(file.rawValue, LOCK_EX | LOCK_NB) != 0 {
            let failure = Errno(rawValue: errno)
            attempts -= 1
            if failure == .wouldBlock, attempts > 0 {
                usleep(5000)
                continue
            }
            try? file.close()
            throw failure
        }
        descriptor = file
        try errnoOnly {
            try file.resize(to: 0)
            _ = try file.writeAll(toAbsoluteOffset: 0, text.utf8)
        }
    }

    deinit { try? descriptor.close() }

    /// What a lock file says, and whether its writer still lives.
    /// - Returns: nil if there is no such file.
    public static func look(at path: FilePath) throws(Errno) -> (text: String, isHeld: Bool)? {
        let file: FileDescriptor
        do throws(Errno) {
            file = try Files.open(path, O_RDONLY | O_NOFOLLOW)
        } catch Errno.noSuchFileOrDirectory {
            return nil
        }
        // Closing drops the shared lock again.
        defer { try? file.close() }
        let isHeld = flock(file.rawValue, LOCK_SH | LOCK_NB) != 0
        if isHeld, errno != EWOULDBLOCK { throw Errno(rawValue: errno) }
        return (String(decoding: try Files.contents(of: file, limit: 1024), as: UTF8.self), isHeld)
    }
}

/// Runs calls of the System library, whose untyped errors are all `Errno`.
func errnoOnly<R>(_ body: () throws -> R) throws(Errno) -> R {
    do {
        return try body()
    } catch let failure as Errno {
        throw failure
    } catch {
        throw .ioError
    }
}
