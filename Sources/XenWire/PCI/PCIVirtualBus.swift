// The buses that a guest sees: where each of its cards appears on them.

/// How cards are laid out for a guest.
public enum PCIBusMode: String, Sendable, CaseIterable {
    /// One bus, 0000:00: functions of one device stay together, everything else has a slot of its own. What xen-pciback
    /// does unless told otherwise.
    case virtual = "vpci"
    /// Every card where it is on the host.
    case passthrough
    /// One bus, 0000:00, each card function 0 of a slot of its own: for guests that look at no other function (2.6
    /// trees).
    case slot
}

/// Why a card has no place on a guest's bus.
public enum PCIBusFault: Error, Hashable, Sendable, CustomStringConvertible {
    /// All 32 slots are taken.
    case full(PCIAddress)
    /// The guest has this card.
    case present(PCIAddress)
    /// The second card is to be where the first one is.
    case taken(PCIAddress, by: PCIAddress)

    public var description: String {
        switch self {
        case .full(let card): "there is no slot left for \(card): a guest's bus has 32"
        case .present(let card): "the guest has \(card) already"
        case .taken(let place, let card): "\(place) of the guest's bus belongs to \(card)"
        }
    }
}

/// A guest's cards and their places. What it says of a card is published as `vdev-N` and never changes while the guest
/// has the card.
public struct PCIVirtualBus: Hashable, Sendable {
    /// One card.
    public struct Card: Hashable, Sendable {
        public let host: PCIAddress
        public let guest: PCIAddress
        let isVirtualFunction: Bool
    }

    public let mode: PCIBusMode
    /// In the order in which they came.
    public private(set) var cards: [Card] = []

    public init(_ mode: PCIBusMode) { self.mode = mode }

    /// The card at a place of the guest's buses.
    public func host(at guest: PCIAddress) -> PCIAddress? { cards.first { $0.guest == guest }?.host }

    /// The place of a card.
    public func guest(of host: PCIAddress) -> PCIAddress? { cards.first { $0.host == host }?.guest }

    /// Gives a card a place.
    /// - Parameters:
    ///   - isVirtualFunction: such a one shares its device's number with others that it has nothing to do with.
    ///   - published: its `vdev-N`, if there is one: a worker that takes over finds every card where it was.
    @discardableResult
    public mutating func add(
        _ host: PCIAddress,
        isVirtualFunction: Bool = false,
        published: PCIAddress? = nil
    ) throws(PCIBusFault) -> PCIAddress {
        if guest(of: host) != nil { throw .present(host) }
        let place = if let published { published } else { try place(for: host, isVirtualFunction) }
        if let other = self.host(at: place) { throw .taken(place, by: other) }
        cards.append(Card(host: host, guest: place, isVirtualFunction: isVirtualFunction))
        return place
    }

    /// - Returns: false if the guest does not have the card.
    @discardableResult
    public mutating func remove(_ host: PCIAddress) -> Bool {
        guard let index = cards.firstIndex(where: { $0.host == host }) else { return false }
        cards.remove(at: index)
        return true
    }

    /// The buses that the guest must scan, in the order of their cards: `root-N`. A guest does not forget a bus, so of
    /// these only new ones are published.
    public var roots: [PCIRoot] {
        switch mode {
        case .virtual, .slot: return [PCIRoot(segment: 0, bus: 0)]
        case .passthrough:
            var roots: [PCIRoot] = []
            for card in cards {
                let root = PCIRoot(segment: card.guest.segment, bus: card.guest.bus)
                if !roots.contains(root) { roots.append(root) }
            }
            return roots
        }
    }

    private func place(for host: PCIAddress, _ isVirtualFunction: Bool) throws(PCIBusFault) -> PCIAddress {
        let function: UInt8
        switch mode {
        case .passthrough: return host
        case .slot: function = 0
        case .virtual:
            function = isVirtualFunction ? 0 : host.function
            let sibling = cards.first {
                !isVirtualFunction && !$0.isVirtualFunction && $0.host.sharesDevice(with: host)
            }
            if let sibling { return PCIAddress(bus: 0, deviceFunction: sibling.guest.device &<< 3 | function) }
        }
        let taken = Set(cards.map(\.guest.device))
        guard let slot = (0..<32).first(where: { !taken.contains($0) }) else { throw .full(host) }
        return PCIAddress(bus: 0, deviceFunction: slot &<< 3 | function)
    }
}
