// The verb BlockResize.

/// Adopts the image's present size.
public struct BlockResize: ControlVerb {
    public static let name = "BlockResize"

    public struct Reply: Codable, Equatable, Sendable {
        /// Sectors of 512 bytes.
        public var sectors: Int64

        public init(sectors: Int64) {
            self.sectors = sectors
        }
    }

    /// Number or name.
    public var domain: String
    /// Name or number.
    public var device: String

    public init(domain: String, device: String) {
        self.domain = domain
        self.device = device
    }
}
