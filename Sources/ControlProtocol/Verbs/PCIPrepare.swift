// The verb PCIPrepare.

/// Makes the cards of a line of a guest's configuration ready to be given to a running guest: reads the line, hides what
/// `seize=1` allows to be taken, and checks each card as `PCICheck` does.
public struct PCIPrepare: ControlVerb {
    public static let name = "PCIPrepare"

    /// Number or name.
    public var domain: String
    /// As in xl-pci-configuration(5): `08:05.0,permissive=1`, `0000:08:05.*`, `08:05.0@10`.
    public var line: String

    public struct Reply: Codable, Equatable, Sendable {
        /// Its number.
        public var domain: Int
        /// One for each card of the line.
        public var checks: [PCICheck.Reply]
        /// What `xl pci-attach` is to be told.
        public var line: String

        public init(domain: Int, checks: [PCICheck.Reply], line: String) {
            self.domain = domain
            self.checks = checks
            self.line = line
        }

        /// Whether nothing stands in the way of any.
        public var isAssignable: Bool { checks.allSatisfy(\.isAssignable) }
    }

    public init(domain: String, line: String) {
        self.domain = domain
        self.line = line
    }
}
