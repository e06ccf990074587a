// The verb Show.

/// One device, or all of a domain.
public struct Show: ControlVerb {
    public static let name = "Show"

    public struct Reply: Codable, Equatable, Sendable {
        public var reports: [Report]

        public init(reports: [Report]) {
            self.reports = reports
        }
    }

    /// Number or name.
    public var domain: String
    /// Name or number; nil for all.
    public var device: String?

    public init(domain: String, device: String? = nil) {
        self.domain = domain
        self.device = device
    }
}
