// What went wrong on the host's side, for whatever kind of device, and what to do about it.

public import SystemPackage

/// Something of the host did not work; `text` is for the person who must mend it.
public struct HostFailure: Error, Hashable, Sendable, CustomStringConvertible {
    /// What kind of thing is wrong.
    public enum Kind: Hashable, Sendable {
        /// What was named does not exist (any more).
        case notFound
        /// Somebody else has it, or the name is taken.
        case busy
        /// It exists and must not be given away, or we must not have it.
        case denied
        /// A name or number makes no sense.
        case invalid
        /// The kernel, or a library, refused.
        case host
    }
    public let kind: Kind
    /// What was done to what, what came of it, and what can be done.
    public let text: String
    /// What the kernel said, where it was asked; `text` has it in words.
    public let errno: Errno?

    public init(_ kind: Kind, _ text: String, errno: Errno? = nil) {
        self.kind = kind
        self.text = text
        self.errno = errno
    }

    /// A system call that failed.
    /// - Parameters:
    ///   - what: what was done to what: `interface vif7.0 cannot be kept`.
    ///   - advice: what can be done, where it is known.
    public init(_ what: String, _ errno: Errno, advice: String? = nil) {
        self.init(.host, "\(what): \(errno)" + (advice.map { " (\($0))" } ?? ""), errno: errno)
    }

    public var description: String { text }
}
