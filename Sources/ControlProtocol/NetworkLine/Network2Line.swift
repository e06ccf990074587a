// A netchannel2 card as a configuration describes it.

/// What `vif2=['bridge=eth1']` says (xm 4.0, xend's netif2.py), and what `xenback network2-attach` takes besides: `mac`,
/// `rate` and `mtu` with the meaning that they have for `vif` (xl-network-configuration(5)).
public struct Network2Line: Equatable, Sendable {
    public var bridge: String?
    /// The guest's address, `aa:bb:cc:dd:ee:ff` in small letters; nil: any.
    public var frontMAC: String?
    /// The host's end's; nil: what a bridge does not mind, or any without a bridge.
    public var backMAC: String?
    /// The guest may ask for bypasses, and its sources are not filtered.
    public var isTrusted = false
    /// The guest trusts this end.
    public var isBackTrusted = true
    /// Frames of the guest with another source than its address are dropped; nil: unless it is trusted.
    public var filters: Bool?
    /// The guest is to do the same; nil: unless it trusts this end.
    public var frontFilters: Bool?
    /// The card of the host to take hardware queues of. Nothing does that today.
    public var physicalDevice: String?
    public var maxBypasses = 5
    /// What the guest may send: `<bytes>,<microseconds>`, as in XenStore.
    public var rate: String?
    public var mtu: Int?

    public init() {}

    /// Reads a line. Keys come in any order; blanks mean nothing.
    public init(parsing line: String) throws(DeviceLineError) {
        var parser = Network2LineParser(line)
        self = try parser.parse()
    }
}
