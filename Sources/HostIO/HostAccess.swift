// The single entry to everything that needs privilege: whatever a process of ours opens on the host, it opens through
// this.

internal import Glibc
internal import Synchronization
public import SystemPackage

/// What is not opened by its path, but by a library or as a kernel socket.
public enum HostResource: Hashable, Sendable {
    /// Other domains' pages: `/dev/xen/gntdev`.
    case grants
    /// Pages of our own for others: `/dev/xen/gntalloc`.
    case ownGrants
    /// `/dev/xen/evtchn`.
    case eventChannels
    /// Hypercalls: `/dev/xen/hypercall`, or `/dev/xen/privcmd` where the kernel has no such device.
    case hypercalls
    /// xenstored's socket.
    case xenStore(FilePath)
    /// A queue of the TAP of this name: `/dev/net/tun`.
    case tap(String)
    /// Interfaces, bridges and routes: a netlink socket.
    case networkConfiguration
    /// The kernel's messages about devices that come and go: a netlink socket.
    case deviceEvents
}

/// How a process gets what needs privilege. What needs none is done directly: names in directories, sizes, links, and
/// the service's own sockets.
public protocol HostAccess: Sendable {
    /// Opens a file, a directory or a device node; `O_CLOEXEC` is added.
    /// - Returns: a descriptor that is the caller's.
    /// - Throws: the errors of open(2).
    func open(_ path: FilePath, flags: CInt, permissions: CInterop.Mode) throws(Errno) -> CInt

    /// Called before this process, or a library in it, opens `resource`. To refuse it, make that fail.
    func prepare(_ resource: HostResource)
}

/// For a process that may do everything itself.
public struct OwnAccess: HostAccess {
    public init() {}

    public func open(_ path: FilePath, flags: CInt, permissions: CInterop.Mode) throws(Errno) -> CInt {
        while true {
            // SAFETY: the text lives for the call.
            let descriptor = unsafe path.withPlatformString { unsafe Glibc.open($0, flags | O_CLOEXEC, permissions) }
            if descriptor >= 0 { return descriptor }
            guard errno == EINTR else { throw Errno(rawValue: errno) }
        }
    }

    public func prepare(_ resource: HostResource) {}
}

/// The access of this process.
public enum HostDoor {
    private static let access = Mutex<any HostAccess>(OwnAccess())

    /// Makes everything go through `access` from now on.
    /// - Returns: the former one.
    @discardableResult
    public static func install(_ new: any HostAccess) -> any HostAccess {
        access.withLock { access in
            defer { access = new }
            return access
        }
    }

    /// See `HostAccess.open`.
    public static func open(
        _ path: FilePath,
        flags: CInt,
        permissions: CInterop.Mode = 0o600
    ) throws(Errno) -> CInt {
        try access.withLock { $0 }.open(path, flags: flags, permissions: permissions)
    }

    /// Runs the call that opens `resource`.
    public static func enter<Value: ~Copyable, Failure: Error>(
        _ resource: HostResource,
        _ open: () throws(Failure) -> Value
    ) throws(Failure) -> Value {
        access.withLock { $0 }.prepare(resource)
        return try open()
    }
}
