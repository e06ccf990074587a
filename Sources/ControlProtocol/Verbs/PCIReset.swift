// The verb PCIReset.

/// Resets a hidden card that no guest has: what a guest left in it is nobody's to find, and it reaches nobody's memory.
public struct PCIReset: ControlVerb {
    public static let name = "PCIReset"

    /// `08:05.0` or `0000:08:05.0`
    public var card: String

    public struct Reply: Codable, Equatable, Sendable {
        public var card: PCIDevice

        public init(card: PCIDevice) {
            self.card = card
        }
    }

    public init(card: String) {
        self.card = card
    }
}
