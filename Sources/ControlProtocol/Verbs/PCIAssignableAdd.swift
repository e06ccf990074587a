// The verb PCIAssignableAdd.

/// Hides a card from the host's drivers, so that a guest can have it. Nothing happens to one that is hidden.
public struct PCIAssignableAdd: ControlVerb {
    public static let name = "PCIAssignableAdd"

    /// `08:05.0` or `0000:08:05.0`
    public var card: String

    public struct Reply: Codable, Equatable, Sendable {
        /// As it is now.
        public var card: PCIDevice

        public init(card: PCIDevice) {
            self.card = card
        }
    }

    public init(card: String) {
        self.card = card
    }
}
