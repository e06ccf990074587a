// Unix stream sockets: listen, accept, connect, and who is at the other end.

internal import CLinux
internal import Glibc
public import SystemPackage

/// The process at the other end of a unix socket when it connected (`SO_PEERCRED`, unix(7)).
public struct PeerCredentials: Hashable, Sendable {
    public let process: Int32
    public let user: UInt32
    public let group: UInt32

    /// True for root and for the user this process runs as.
    public var isRootOrOwner: Bool { user == 0 || user == geteuid() }
}

/// Calls on unix stream sockets. Every descriptor made here is closed on exec.
public enum UnixSocket {
    /// Makes a non-blocking listening socket at `path`, in place of whatever socket a dead process left there.
    ///
    /// - Parameters:
    ///   - permissions: of the socket's file; set before the first connection can be made.
    ///   - isOurs: the caller knows by a lock that the former listener is dead. Its socket may still accept connections
    ///     for a while: io_uring holds the files that a process watched until its ring is torn down, which the kernel
    ///     does after the process has ended.
    /// - Throws: `.fileExists` if `path` is there and is no socket; `.addressInUse` if somebody listens on it.
    public static func listen(
        at path: FilePath,
        permissions: FilePermissions = [.ownerReadWrite],
        backlog: Int32 = 64,
        isOurs: Bool = false
    ) throws(Errno) -> FileDescriptor {
        if isOurs { try removeAny(path) } else { try removeStale(path) }
        let socket = FileDescriptor(rawValue: try check(unix_socket(1)))
        do throws(Errno) {
            // SAFETY (here and below): a Swift string passed to C lives, NUL-terminated, until the call returns.
            _ = try check(unsafe unix_bind(socket.rawValue, path.string))
            // No connection is possible before listen(2), so nobody can connect while the file has the umask's
            // permissions.
            _ = try check(unsafe chmod(path.string, permissions.rawValue))
            _ = try check(CLinux.listen(socket.rawValue, backlog))
            return socket
        } catch {
            try? socket.close()
            throw error
        }
    }

    /// Takes one waiting connection, or nil when there is none.
    public static func accept(
        from listener: FileDescriptor,
        nonBlocking: Bool = true
    ) throws(Errno) -> FileDescriptor? {
        while true {
            let descriptor = unix_accept(listener.rawValue, nonBlocking ? 1 : 0)
            if descriptor >= 0 { return FileDescriptor(rawValue: descriptor) }
            switch errno {
            case EINTR, ECONNABORTED: continue
            case EAGAIN: return nil
            default: throw Errno(rawValue: errno)
            }
        }
    }

    /// Connects to a listening socket.
    ///
    /// - Throws: `.noSuchFileOrDirectory` or `.connectionRefused` when nobody listens, `.permissionDenied`.
    public static func connect(to path: FilePath, nonBlocking: Bool = false) throws(Errno) -> FileDescriptor {
        let socket = FileDescriptor(rawValue: try check(unix_socket(nonBlocking ? 1 : 0)))
        do throws(Errno) {
            _ = try check(unsafe unix_connect(socket.rawValue, path.string))
            return socket
        } catch {
            try? socket.close()
            throw error
        }
    }

    /// Who connected.
    public static func peer(of socket: FileDescriptor) throws(Errno) -> PeerCredentials {
        var credentials = ucred()
        var length = socklen_t(MemoryLayout<ucred>.size)
        // SAFETY: both pointers are to locals of this call, and `length` is the size of the first.
        _ = try check(unsafe getsockopt(socket.rawValue, SOL_SOCKET, SO_PEERCRED, &credentials, &length))
        return PeerCredentials(process: credentials.pid, user: credentials.uid, group: credentials.gid)
    }

    /// Sends as much as the socket accepts now. A closed peer is an error, never a SIGPIPE.
    ///
    /// - Returns: how many bytes went; 0 on a non-blocking socket that is full.
    public static func send(_ bytes: ArraySlice<UInt8>, to socket: FileDescriptor) throws(Errno) -> Int {
        while true {
            // SAFETY: the kernel reads the buffer during the call only.
            let sent = unsafe bytes.withUnsafeBytes { buffer in
                unsafe unix_send(socket.rawValue, buffer.baseAddress, buffer.count)
            }
            if sent >= 0 { return sent }
            switch errno {
            case EINTR: continue
            case EAGAIN: return 0
            default: throw Errno(rawValue: errno)
            }
        }
    }

    /// Reads what is there, up to `limit` bytes.
    ///
    /// - Returns: an empty array at the end of the stream; nil on a non-blocking socket that has nothing.
    public static func receive(from socket: FileDescriptor, limit: Int = 16384) throws(Errno) -> [UInt8]? {
        while true {
            var failure: Int32 = 0
            // SAFETY: the kernel writes at most `count` bytes of the buffer during the call, and says how many.
            let bytes = unsafe [UInt8](unsafeUninitializedCapacity: limit) { buffer, filled in
                let count = unsafe recv(socket.rawValue, buffer.baseAddress, buffer.count, 0)
                if count < 0 { failure = errno }
                filled = max(count, 0)
            }
            switch failure {
            case 0: return bytes
            case EINTR: continue
            case EAGAIN: return nil
            default: throw Errno(rawValue: failure)
            }
        }
    }

    /// Waits until the socket can be read (or written), or the time is over.
    ///
    /// - Returns: false when the time is over, or a signal came.
    public static func wait(
        for socket: FileDescriptor,
        toWrite: Bool = false,
        milliseconds: Int32
    ) throws(Errno) -> Bool {
        var entry = pollfd(fd: socket.rawValue, events: Int16(toWrite ? POLLOUT : POLLIN), revents: 0)
        // SAFETY: one entry, a local of this call.
        let count = unsafe poll(&entry, 1, milliseconds)
        if count < 0, errno != EINTR { throw Errno(rawValue: errno) }
        return count > 0
    }

    private static func check(_ result: Int32) throws(Errno) -> Int32 {
        guard result >= 0 else { throw Errno(rawValue: errno) }
        return result
    }

    private static func removeAny(_ path: FilePath) throws(Errno) {
        do throws(Errno) { try removeSocket(path) } catch {
            if error != .noSuchFileOrDirectory { throw error }
        }
    }

    private static func removeStale(_ path: FilePath) throws(Errno) {
        do throws(Errno) {
            let probe = try connect(to: path)
            try? probe.close()
        } catch {
            switch error {
            case .noSuchFileOrDirectory: return
            case .connectionRefused: return try removeSocket(path)
            default: throw error
            }
        }
        throw Errno.addressInUse
    }

    /// connect(2) also returns ECONNREFUSED for an ordinary file, which must stay.
    private static func removeSocket(_ path: FilePath) throws(Errno) {
        var status = stat()
        // SAFETY: `status` is a local of this call.
        _ = try check(unsafe lstat(path.string, &status))
        guard status.st_mode & S_IFMT == S_IFSOCK else { throw Errno.fileExists }
        _ = try check(unsafe unlink(path.string))
    }
}
