// The verbs Network2Attach and Network2Detach.

/// Gives a running domain a netchannel2 card (`vif2`).
public struct Network2Attach: ControlVerb {
    public static let name = "Network2Attach"

    public struct Reply: Codable, Equatable, Sendable {
        public var device: Device

        public init(device: Device) {
            self.device = device
        }
    }

    /// Number or name.
    public var domain: String
    /// A `Network2Line`: `bridge=xenbr0, front_mac=00:16:3e:12:34:56`.
    public var card: String

    public init(domain: String, card: String) {
        self.domain = domain
        self.card = card
    }
}

/// Takes a netchannel2 card from a domain.
public struct Network2Detach: ControlVerb {
    public static let name = "Network2Detach"
    public typealias Reply = NoParameters

    /// Number or name.
    public var domain: String
    /// The card's number, or `vif2/0`.
    public var device: String
    /// Take it away if the frontend does not let go in time.
    public var force: Bool?

    public init(domain: String, device: String, force: Bool? = nil) {
        self.domain = domain
        self.device = device
        self.force = force
    }
}
