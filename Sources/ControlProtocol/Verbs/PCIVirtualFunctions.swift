// The verbs PCIVirtualFunctions and PCIVirtualFunctionSet.

/// The virtual functions (SR-IOV) of a card, after making or removing some.
public struct PCIVirtualFunctions: ControlVerb {
    public static let name = "PCIVirtualFunctions"

    /// `08:05.0` or `0000:08:05.0`
    public var card: String
    /// How many there are to be; none: as many as there are.
    public var count: Int?

    public struct Reply: Codable, Equatable, Sendable {
        public var card: PCIDevice
        /// Most that it can have.
        public var limit: Int
        public var functions: [PCIVirtualFunction]

        public init(card: PCIDevice, limit: Int, functions: [PCIVirtualFunction]) {
            self.card = card
            self.limit = limit
            self.functions = functions
        }
    }

    public init(card: String, count: Int? = nil) {
        self.card = card
        self.count = count
    }
}

/// Sets what a network card does with one of its virtual functions.
public struct PCIVirtualFunctionSet: ControlVerb {
    public static let name = "PCIVirtualFunctionSet"

    /// The card that it is a function of.
    public var card: String
    /// From 0, as in `ip link set dev … vf 0`.
    public var index: Int
    /// `00:16:3e:01:02:03`
    public var address: String?
    /// 1 … 4094; 0: none.
    public var vlan: Int?
    /// Whether packets with another sender's address are dropped.
    public var spoofCheck: Bool?
    /// Whether the guest may change its address and listen to all.
    public var trust: Bool?

    public typealias Reply = PCIVirtualFunctions.Reply

    public init(
        card: String,
        index: Int,
        address: String? = nil,
        vlan: Int? = nil,
        spoofCheck: Bool? = nil,
        trust: Bool? = nil
    ) {
        self.card = card
        self.index = index
        self.address = address
        self.vlan = vlan
        self.spoofCheck = spoofCheck
        self.trust = trust
    }
}

/// One of them (`PCIVirtualFunction` of the interface). Of a card that is no network card the last four are none.
public struct PCIVirtualFunction: Codable, Equatable, Sendable {
    public var index: Int
    public var card: PCIDevice
    /// The guest that has it.
    public var domain: Int?
    public var address: String?
    public var vlan: Int?
    public var spoofCheck: Bool?
    public var trust: Bool?

    public init(
        index: Int,
        card: PCIDevice,
        domain: Int? = nil,
        address: String? = nil,
        vlan: Int? = nil,
        spoofCheck: Bool? = nil,
        trust: Bool? = nil
    ) {
        self.index = index
        self.card = card
        self.domain = domain
        self.address = address
        self.vlan = vlan
        self.spoofCheck = spoofCheck
        self.trust = trust
    }
}
