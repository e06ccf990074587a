// The verb BlockList.

/// The disks of a domain.
public struct BlockList: ControlVerb {
    public static let name = "BlockList"

    public struct Reply: Codable, Equatable, Sendable {
        public var disks: [Disk]

        public init(disks: [Disk]) {
            self.disks = disks
        }
    }

    /// Number or name.
    public var domain: String

    public init(domain: String) {
        self.domain = domain
    }
}
