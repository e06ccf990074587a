// A descriptor that someone owns.

internal import CLinux
internal import Glibc
public import SystemPackage

/// An open file or block device. The descriptor is closed with the last reference; loops hold one per operation in
/// flight, so nothing can be read from, or written to, a number that was reused.
public final class OpenFile: Sendable {
    /// The descriptor, for system calls. Never close it, never keep it beyond this object.
    public let descriptor: CInt
    /// Whether it is an ordinary file on tmpfs or ramfs: reading and writing are copies that wait for no device (unless
    /// the host swaps), so that `readNow` and `writeNow` cost less than a loop's detour.
    public let isInMemory: Bool

    /// Takes over a descriptor.
    public init(adopting descriptor: CInt) {
        self.descriptor = descriptor
        isInMemory = linux_is_in_memory(descriptor) != 0
    }

    /// Opens a file; `O_CLOEXEC` is added.
    /// - Throws: the errors of open(2).
    public convenience init(path: String, flags: CInt, permissions: UInt32 = 0o600) throws(Errno) {
        self.init(adopting: try HostDoor.open(FilePath(path), flags: flags, permissions: permissions))
    }

    deinit { _ = close(descriptor) }
}
