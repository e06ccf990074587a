// What went wrong on the host's side, for whatever kind of device, and what to do about it.

public import SystemPackage

/// Something on the host failed; `text` is for the person who has to fix it.
public struct HostFailure: Error, Hashable, Sendable, CustomStringConvertible {
    /// The kind of failure.
    public enum Kind: Hashable, Sendable {
        /// The thing named does not exist (any more).
        case notFound
        /// Somebody else has it, or the name is taken.
        case busy
        /// It exists but must not be given away, or we have no permission.
        case denied
        /// A malformed name or number.
        case invalid
        /// The kernel or a library reported an error.
        case host
    }
    public let kind: Kind
    /// What was attempted on what, how it failed, and what can be done.
    public let text: String
    /// The kernel's error, if it was a system call that failed; `text` has it in words.
    public let errno: Errno?

    public init(_ kind: Kind, _ text: String, errno: Errno? = nil) {
        self.kind = kind
        self.text = text
        self.errno = errno
    }

    /// A system call that failed.
    /// - Parameters:
    ///   - what: what failed: `interface vif7.0 cannot be kept`.
    ///   - advice: what can be done, where it is known.
    public init(_ what: String, _ errno: Errno, advice: String? = nil) {
        self.init(.host, "\(what): \(errno)" + (advice.map { " (\($0))" } ?? ""), errno: errno)
    }

    public var description: String { text }
}
