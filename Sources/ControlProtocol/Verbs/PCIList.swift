// The verb PCIList.

/// The cards that a domain has, whoever serves them.
public struct PCIList: ControlVerb {
    public static let name = "PCIList"

    /// Number or name.
    public var domain: String

    public struct Reply: Codable, Equatable, Sendable {
        public var cards: [PCIAssignedCard]

        public init(cards: [PCIAssignedCard]) {
            self.cards = cards
        }
    }

    public init(domain: String) {
        self.domain = domain
    }
}

/// A card of a guest (`PCIAssignedCard` of the interface).
public struct PCIAssignedCard: Codable, Equatable, Sendable {
    /// On the host's buses: `0000:08:05.0`.
    public var address: String
    /// Where the guest sees it, once it has been told: `0000:00:00.0`.
    public var virtualAddress: String?
    /// Of this card, as public/io/xenbus.h names it: `initialised` when it is there.
    public var state: String
    /// As in a guest's configuration: `permissive=1,…`.
    public var options: String
    /// `xenbackd`, or `kernel` for xen-pciback; none: nobody yet.
    public var server: String?
    /// What is at that address of the host; none: it is gone.
    public var vendor: Int?
    public var product: Int?

    public init(
        address: String,
        virtualAddress: String? = nil,
        state: String,
        options: String,
        server: String? = nil,
        vendor: Int? = nil,
        product: Int? = nil
    ) {
        self.address = address
        self.virtualAddress = virtualAddress
        self.state = state
        self.options = options
        self.server = server
        self.vendor = vendor
        self.product = product
    }
}
