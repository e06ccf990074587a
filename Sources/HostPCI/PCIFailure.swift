// What went wrong on the host's side, and what to do about it.

/// Something of the host's PCI did not work; `text` is for the person who must mend it.
public struct PCIFailure: Error, Hashable, Sendable, CustomStringConvertible {
    /// What kind of thing is wrong.
    public enum Kind: Hashable, Sendable {
        /// There is no such card (any more).
        case notFound
        /// Somebody else has it.
        case busy
        /// It exists and must not be given away.
        case denied
        /// A name or number makes no sense.
        case invalid
        /// The kernel refused.
        case host
    }
    public let kind: Kind
    public let text: String
    public init(_ kind: Kind, _ text: String) {
        self.kind = kind
        self.text = text
    }
    public var description: String { text }
}
