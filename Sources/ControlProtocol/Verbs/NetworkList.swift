// The verb NetworkList.

/// The network cards of a domain.
public struct NetworkList: ControlVerb {
    public static let name = "NetworkList"

    public struct Reply: Codable, Equatable, Sendable {
        public var cards: [NetworkCard]

        public init(cards: [NetworkCard]) {
            self.cards = cards
        }
    }

    /// Number or name.
    public var domain: String

    public init(domain: String) {
        self.domain = domain
    }
}

/// One network card in a list (`NetworkCard` of the interface).
public struct NetworkCard: Codable, Equatable, Sendable {
    public var device: Device
    /// The guest's address.
    public var mac: String?
    /// The interface at the host's end.
    public var interface: String?
    /// The bridge that the toolstack asked for.
    public var bridge: String?
    public var mtu: Int?
    public var queues: Int?
    /// As the guest sees it: what it sent.
    public var txPackets: Int64
    public var txBytes: Int64
    public var txDropped: Int64
    /// What it received.
    public var rxPackets: Int64
    public var rxBytes: Int64
    public var rxDropped: Int64

    public init(device: Device, _ facts: CardFacts) {
        self.device = device
        mac = facts.mac
        interface = facts.interface
        bridge = facts.bridge
        mtu = facts.mtu
        queues = facts.queues
        txPackets = facts.txPackets
        txBytes = facts.txBytes
        txDropped = facts.txDropped
        rxPackets = facts.rxPackets
        rxBytes = facts.rxBytes
        rxDropped = facts.rxDropped
    }
}

/// What only a network card has (`CardFacts` of the interface).
public struct CardFacts: Codable, Equatable, Sendable {
    public var mac: String?
    public var interface: String?
    public var bridge: String?
    public var mtu: Int?
    public var queues: Int?
    /// The limit that is in force: bytes and microseconds, or bytes per second, in words.
    public var rate: String?
    public var txPackets: Int64 = 0
    public var txBytes: Int64 = 0
    public var txDropped: Int64 = 0
    public var rxPackets: Int64 = 0
    public var rxBytes: Int64 = 0
    public var rxDropped: Int64 = 0

    public init() {}
}
