// A host whose cards are simulated: who has which, and what is known of the last owner.

public import HostIO
public import HostPCI
internal import Synchronization

/// The cards of a simulated host, with the rules of `KernelPCIHost`: one owner at a time, and nobody after another without a
/// reset. Its marks live as long as it does.
public final class SimulatedPCIHost: PCIHost {
    private struct State: Sendable {
        var cards: [PCIBusAddress: SimulatedPCICard] = [:]
        var owners: [PCIBusAddress: String] = [:]
        var used: [PCIBusAddress: String] = [:]
        var isTakingSlow = false
        fileprivate var watches: [ObjectIdentifier: SimulatedErrorWatch] = [:]
    }
    private let state = Mutex(State())

    public init() {}

    /// Puts a card in, in place of one that was there.
    public func plug(_ card: SimulatedPCICard) {
        state.withLock { $0.cards[card.facts.address] = card }
    }

    /// Pulls it out.
    public func unplug(_ address: PCIBusAddress) {
        state.withLock { $0.cards.removeValue(forKey: address) }?.unplug()
    }

    public subscript(_ address: PCIBusAddress) -> SimulatedPCICard? { state.withLock { $0.cards[address] } }

    /// Who has a card.
    public func owner(of address: PCIBusAddress) -> String? { state.withLock { $0.owners[address] } }

    /// Who used it last without a reset afterwards, if anybody did.
    public func lastUser(of address: PCIBusAddress) -> String? { state.withLock { $0.used[address] } }

    /// From now on, whoever takes a card waits.
    public func holdTaking(_ holds: Bool) { state.withLock { $0.isTakingSlow = holds } }

    public func take(
        _ address: PCIBusAddress,
        owner: String,
        isTakeover: Bool
    ) throws(HostFailure) -> any OpenPCICard {
        while state.withLock({ $0.isTakingSlow }) { pauseForHost() }
        let result = state.withLock { state -> Result<(SimulatedPCICard, String?), HostFailure> in
            guard let card = state.cards[address] else {
                return .failure(HostFailure(.notFound, "there is no card \(address) on this host"))
            }
            if let other = state.owners[address] {
                return .failure(HostFailure(.busy, "\(address) belongs to \(other); detach it there first"))
            }
            state.owners[address] = owner
            let last = state.used[address]
            state.used[address] = owner
            return .success((card, last))
        }
        let (card, last) = try result.get()
        if let last, !isTakeover || last != owner {
            do throws(HostFailure) { try card.reset() } catch {
                state.withLock { state in
                    state.owners[address] = nil
                    state.used[address] = last
                }
                throw HostFailure(.denied, "\(address) was left by \(last) and cannot be reset: \(error)")
            }
        }
        return OpenSimulatedCard(card, self)
    }

    /// A card reports an error, or the host is done with one.
    public func report(_ event: PCIErrorEvent) {
        for watch in state.withLock({ Array($0.watches.values) }) { watch.tell(event) }
    }

    public func watchErrors(
        on loop: EventLoop,
        _ reported: @escaping @Sendable (PCIErrorEvent) -> Void
    ) throws(HostFailure) -> any PCIErrorWatch {
        let watch = SimulatedErrorWatch(self, loop, reported)
        state.withLock { $0.watches[ObjectIdentifier(watch)] = watch }
        return watch
    }

    /// Whether a card's memory is switched on, as Xen looks at it: of a virtual function its parent's, which must be plugged in.
    public func decodesMemory(_ card: SimulatedPCICard) throws(HostFailure) -> Bool {
        guard let parent = card.facts.physicalFunction else { return try card.read(2, at: 4) & 2 != 0 }
        guard let physical = self[parent] else { throw HostFailure(.notFound, "\(parent) is gone") }
        return physical.configuration.decodesMemory
    }

    fileprivate func end(_ watch: SimulatedErrorWatch) {
        state.withLock { $0.watches[ObjectIdentifier(watch)] = nil }
    }

    fileprivate func endOwner(of address: PCIBusAddress) { state.withLock { $0.owners[address] = nil } }
    fileprivate func clearUse(of address: PCIBusAddress) { state.withLock { $0.used[address] = nil } }
}

/// A card that was taken, until the last reference goes.
private final class OpenSimulatedCard: OpenPCICard {
    private let card: SimulatedPCICard
    private let host: SimulatedPCIHost
    let original: PCIConfigurationBytes

    init(_ card: SimulatedPCICard, _ host: SimulatedPCIHost) {
        self.card = card
        self.host = host
        original = card.configuration
    }

    deinit { host.endOwner(of: card.facts.address) }

    var facts: PCIDeviceFacts { card.facts }
    func read(_ count: Int, at offset: Int) throws(HostFailure) -> UInt32 { try card.read(count, at: offset) }
    func write(_ value: UInt32, _ count: Int, at offset: Int) throws(HostFailure) {
        try card.write(value, count, at: offset)
    }

    func decodesMemory() throws(HostFailure) -> Bool { try host.decodesMemory(card) }

    func enter(powerState: UInt8) throws(HostFailure) {
        let register = SimulatedPCICard.Place.powerManagement + 4
        let old = try card.read(2, at: register)
        try card.write(old & ~0x8003 | UInt32(powerState & 3), 2, at: register)
        if old & 3 == 3, powerState == 0 { try restore(to: original) }
    }

    func restore(to header: PCIConfigurationBytes) throws(HostFailure) {
        let bytes = header.bytes
        for offset in Array(stride(from: 0x10, to: 0x28, by: 4)) + [0x30] {
            try card.write(bytes[offset..<offset + 4].reversed().reduce(0) { $0 << 8 | UInt32($1) }, 4, at: offset)
        }
        for offset in [0x0C, 0x0D, 0x3C] { try card.write(UInt32(bytes[offset]), 1, at: offset) }
        try card.write((UInt32(bytes[4]) | UInt32(bytes[5]) << 8) & ~4, 2, at: 4)
    }

    func finish() throws(HostFailure) -> String? {
        if host[card.facts.address] === card { try card.reset() }
        host.clearUse(of: card.facts.address)
        return nil
    }
}

private final class SimulatedErrorWatch: PCIErrorWatch {
    private let host: SimulatedPCIHost
    private let loop: EventLoop
    private let reported: @Sendable (PCIErrorEvent) -> Void

    init(_ host: SimulatedPCIHost, _ loop: EventLoop, _ reported: @escaping @Sendable (PCIErrorEvent) -> Void) {
        self.host = host
        self.loop = loop
        self.reported = reported
    }

    func tell(_ event: PCIErrorEvent) { loop.perform { self.reported(event) } }
    func end() { host.end(self) }
}
