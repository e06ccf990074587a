// The verb PCIListAssignable.

/// The cards of this host that a guest could have: those that are hidden from the host's drivers and that no guest has.
public struct PCIListAssignable: ControlVerb {
    public static let name = "PCIListAssignable"

    public struct Reply: Codable, Equatable, Sendable {
        public var cards: [PCIDevice]

        public init(cards: [PCIDevice]) {
            self.cards = cards
        }
    }

    public init() {}
}

/// One card of the host (`PCIDevice` of the interface).
public struct PCIDevice: Codable, Equatable, Sendable {
    /// `0000:08:05.0`
    public var address: String
    public var vendor: Int
    public var product: Int
    /// Base class, subclass and programming interface: 0x020000 is a network card.
    public var deviceClass: Int
    /// The driver that has it; none: no driver has.
    public var driver: String?
    /// Of a hidden card the driver that had it.
    public var originalDriver: String?

    public init(
        address: String,
        vendor: Int,
        product: Int,
        deviceClass: Int,
        driver: String? = nil,
        originalDriver: String? = nil
    ) {
        self.address = address
        self.vendor = vendor
        self.product = product
        self.deviceClass = deviceClass
        self.driver = driver
        self.originalDriver = originalDriver
    }
}
