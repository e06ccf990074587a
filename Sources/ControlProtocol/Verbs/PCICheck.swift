// The verb PCICheck.

/// Says whether a card can be given to a guest, and why not. Changes nothing.
public struct PCICheck: ControlVerb {
    public static let name = "PCICheck"

    /// `08:05.0` or `0000:08:05.0`
    public var card: String
    /// The guest, if it exists already.
    public var domain: String?

    public struct Reply: Codable, Equatable, Sendable {
        public var card: PCIDevice
        public var findings: [PCIFinding]
        /// What xl's configuration says of the card: `pci = ['0000:08:05.0']`.
        public var line: String

        public init(card: PCIDevice, findings: [PCIFinding], line: String) {
            self.card = card
            self.findings = findings
            self.line = line
        }

        /// Whether nothing stands in the way.
        public var isAssignable: Bool { !findings.contains { $0.verdict == "obstacle" } }
    }

    public init(card: String, domain: String? = nil) {
        self.card = card
        self.domain = domain
    }
}

/// One point of a check (`PCIFinding` of the interface).
public struct PCIFinding: Codable, Equatable, Sendable {
    /// `good`, `warning` or `obstacle`.
    public var verdict: String
    /// A word or two: `driver`, `reset`.
    public var subject: String
    public var text: String

    public init(verdict: String, subject: String, text: String) {
        self.verdict = verdict
        self.subject = subject
        self.text = text
    }
}
