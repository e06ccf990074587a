// The verb PCIAssignableRemove.

/// Ends the hiding of a card that no guest has.
public struct PCIAssignableRemove: ControlVerb {
    public static let name = "PCIAssignableRemove"

    /// `08:05.0` or `0000:08:05.0`
    public var card: String
    /// Whether the driver that had it gets it back; otherwise it has none until somebody binds one.
    public var rebind: Bool?

    public struct Reply: Codable, Equatable, Sendable {
        /// As it is now.
        public var card: PCIDevice

        public init(card: PCIDevice) {
            self.card = card
        }
    }

    public init(card: String, rebind: Bool? = nil) {
        self.card = card
        self.rebind = rebind
    }
}
