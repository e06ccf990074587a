// What is wrong with a line that describes a device, told so that the place is seen.

/// An error in a disk's line, a USB controller's or a netchannel2 card's.
public struct DeviceLineError: Error, Equatable, Sendable, CustomStringConvertible {
    /// What the line describes: `disk`, `USB`, `card`.
    public let subject: String
    public let line: String
    public let reason: String
    /// Characters before the part that is wrong.
    public let position: Int

    public init(_ subject: String, line: String, reason: String, position: Int) {
        self.subject = subject
        self.line = line
        self.reason = reason
        self.position = position
    }

    /// Three lines: the reason, the line, and a caret below the place.
    public var description: String {
        let caret = String(repeating: " ", count: position) + "^"
        return "\(subject) line, character \(position + 1): \(reason)\n  \(line)\n  \(caret)"
    }
}
