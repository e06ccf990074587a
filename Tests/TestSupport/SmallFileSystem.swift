// A file system in memory that is soon full. Mounting it needs root, as the tests of interfaces do.

internal import Glibc
internal import Synchronization
public import SystemPackage

/// A tmpfs of a few pages, mounted for one test.
public final class SmallFileSystem: Sendable {
    public let path: FilePath
    private let covered = Mutex<[FilePath]>([])

    /// - Throws: the errors of mount(2).
    public init(kilobytes: Int) throws {
        path = try FilePath.temporary()
        let status = unsafe path.withPlatformString { unsafe mount("tmpfs", $0, "tmpfs", 0, "size=\(kilobytes)k") }
        guard status == 0 else { throw Errno(rawValue: errno) }
    }

    deinit {
        for folder in covered.withLock({ $0 }) {
            _ = unsafe folder.withPlatformString { unsafe umount2($0, Int32(MNT_DETACH)) }
        }
        _ = unsafe path.withPlatformString { unsafe umount2($0, Int32(MNT_DETACH)) }
        _ = unsafe path.withPlatformString { unsafe rmdir($0) }
    }

    /// Shows it in place of what is in `folder`, too.
    /// - Throws: the errors of mount(2).
    public func cover(_ folder: FilePath) throws {
        let status = unsafe path.withPlatformString { from in
            unsafe folder.withPlatformString { unsafe mount(from, $0, nil, UInt(MS_BIND), nil) }
        }
        guard status == 0 else { throw Errno(rawValue: errno) }
        covered.withLock { $0.append(folder) }
    }

    private var filler: FilePath { path.appending("filler") }

    /// Takes all the room there is.
    public func fill() throws {
        let file = try FileDescriptor.open(filler, .writeOnly, options: [.create], permissions: .ownerReadWrite)
        try file.closeAfter {
            let page = [UInt8](repeating: 1, count: 4096)
            do {
                while true { _ = try file.writeAll(page) }
            } catch Errno.noSpace {}
        }
    }

    /// Gives it back.
    public func makeRoom() throws {
        guard unsafe filler.withPlatformString({ unsafe unlink($0) }) == 0 else { throw Errno(rawValue: errno) }
    }
}
