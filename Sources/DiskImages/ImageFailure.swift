// Why an image cannot be used, in words for the administrator.

public import SystemPackage

/// An image that cannot be opened or used: a failure of the host or of its configuration, never a frontend's fault.
public struct ImageFailure: Error, Equatable, CustomStringConvertible {
    /// What kind of failure it is, for code that acts on it.
    public enum Reason: Equatable, Sendable {
        /// There is nothing with that name.
        case missing
        /// The daemon may not open it this way.
        case notPermitted
        /// It is neither a file nor a block device.
        case wrongKind
        /// Somebody else has locked it; with the holder, if it was found.
        case locked(LockHolder?)
        /// Another guest or the host itself has it.
        case inUse
        /// A drive without a medium.
        case noMedium
        /// Its size is not possible for a disk.
        case size
        /// Something else.
        case system(Errno)
    }

    /// The name that was given.
    public let path: String
    public let reason: Reason
    /// One sentence that names the image, what is wrong, and what can be done.
    public let message: String

    init(_ path: String, _ reason: Reason, _ message: String) {
        self.path = path
        self.reason = reason
        self.message = message
    }

    public var description: String { message }

    /// Whether waiting can help, because the holder may go.
    public var isLocked: Bool {
        if case .locked = reason { true } else { false }
    }

    /// Who has it, if that was found.
    public var holder: LockHolder? {
        if case .locked(let holder) = reason { holder } else { nil }
    }

    /// The failure of open(2) or stat(2) on `path`.
    static func opening(_ path: String, writing: Bool, _ error: Errno) -> ImageFailure {
        let purpose = writing ? "for writing" : "for reading"
        switch error {
        case .noSuchFileOrDirectory, .notDirectory:
            return ImageFailure(path, .missing, "\(path): there is no such file; check the path in the disk line")
        case .permissionDenied, .notPermitted:
            let text = "\(path): may not be opened \(purpose); check the permissions of the file and of its directories"
            return ImageFailure(path, .notPermitted, text)
        case .readOnlyFileSystem:
            let text =
                "\(path): may not be opened for writing, it is on a read-only file system; add 'ro' to the disk line"
            return ImageFailure(path, .notPermitted, text)
        case .resourceBusy:
            let text =
                "\(path): the kernel says that it is in use: mounted, in a volume group or RAID, or another domain's disk"
            return ImageFailure(path, .locked(nil), text)
        case Errno(rawValue: 123):  // ENOMEDIUM
            return ImageFailure(path, .noMedium, "\(path): there is no medium in the drive")
        default:
            return ImageFailure(path, .system(error), "\(path): cannot be opened \(purpose): \(error)")
        }
    }

    /// Somebody else's lock.
    static func locked(_ path: String, by holder: LockHolder?) -> ImageFailure {
        guard let holder else {
            let text =
                "\(path): is locked, by a process that cannot be seen or by the last I/O of one that has ended; "
                + "try again, or share it on purpose with target=shared:\(path)"
            return ImageFailure(path, .locked(nil), text)
        }
        return ImageFailure(path, .locked(holder), "\(path): is in use by \(holder)")
    }
}
