// What went wrong on the host's side, and what to do about it.

/// Something of the host's USB did not work; `text` is for the person who must mend it.
public struct USBFailure: Error, Hashable, Sendable, CustomStringConvertible {
    /// What kind of thing is wrong.
    public enum Kind: Hashable, Sendable {
        /// There is no such device (any more).
        case notFound
        /// Somebody else has it.
        case busy
        /// It exists and must not be given away, or we must not have it.
        case denied
        /// A name or number makes no sense.
        case invalid
        /// The kernel or libusb refused.
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

extension USBFailure {
    /// Nobody gets a hub: what is plugged in below it can be given away one by one.
    package static func hub(_ facts: USBDeviceFacts) -> USBFailure {
        USBFailure(.denied, "\(facts.address) is a hub; give away what is plugged in below it (\(facts.address).1 …)")
    }
}
