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
    /// What the toolstack wants it to be a port of.
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

    /// Picks a card's line from its report: the facts `mac`, `interface`, `mtu`, `queues` and the counters `tx-packets`,
    /// `tx-bytes`, `tx-dropped`, `rx-packets`, `rx-bytes`, `rx-dropped`. A counter that is not there is 0.
    public init(_ report: Report, bridge: String? = nil) {
        func fact(_ name: String) -> String? { report.facts.first { $0.name == name }?.value }
        func counter(_ name: String) -> Int64 { report.counters.first { $0.name == name }?.value ?? 0 }
        device = report.device
        mac = fact("mac")
        interface = fact("interface")
        self.bridge = bridge
        mtu = fact("mtu").flatMap { Int($0) }
        queues = fact("queues").flatMap { Int($0) }
        txPackets = counter("tx-packets")
        txBytes = counter("tx-bytes")
        txDropped = counter("tx-dropped")
        rxPackets = counter("rx-packets")
        rxBytes = counter("rx-bytes")
        rxDropped = counter("rx-dropped")
    }
}
