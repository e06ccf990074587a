// Interrupts of cards, asked of the machine.

public import Hypervisor
internal import SystemPackage
public import XenWire

/// What `PHYSDEVOP_map_pirq` does, for one domain.
final class SimulatedInterrupts: GuestInterrupts {
    private let link: MachineLink
    init(link: MachineLink) { self.link = link }

    func map(_ message: MessageInterrupt, for domain: DomainID) throws(HypervisorFailure) -> PhysicalInterrupt {
        let number = try link.call(.mapInterrupt, "map an interrupt of \(message.card) for domain \(domain)") {
            $0.put(domain.rawValue)
            $0.put(message)
        } read: { (answer, _) throws(Errno) in
            try answer.integer(UInt32.self)
        }
        return PhysicalInterrupt(number)
    }

    func unmap(_ interrupt: PhysicalInterrupt, of domain: DomainID) throws(HypervisorFailure) {
        try link.call(.unmapInterrupt, "unmap interrupt \(interrupt.rawValue) of domain \(domain)") {
            $0.put(domain.rawValue)
            $0.put(interrupt.rawValue)
        }
    }
}

/// A card as the machine's hypervisor knows it.
public struct SimulatedCardFacts: Sendable {
    public var hasMSI: Bool
    /// Rows of its MSI-X table; 0 without one.
    public var rows: Int
    /// Whether whoever hides it prepared its MSI-X (xen-pciback does).
    public var isPrepared: Bool
    /// Whether its memory, where the table is, is switched on at this moment. Called while the machine answers: it must not call it.
    public var decodesMemory: @Sendable () -> Bool

    public init(
        hasMSI: Bool = true,
        rows: Int = 0,
        isPrepared: Bool = true,
        decodesMemory: @escaping @Sendable () -> Bool = { true }
    ) {
        self.hasMSI = hasMSI
        self.rows = rows
        self.isPrepared = isPrepared
        self.decodesMemory = decodesMemory
    }
}

extension SimulatedMachine {
    /// Tells the hypervisor of a card, as dom0's kernel does when it finds one.
    public func addCard(_ address: PCIAddress, _ facts: SimulatedCardFacts = SimulatedCardFacts()) {
        change { $0.cards[address] = MachineState.Card(facts: facts) }
    }

    /// Assigns a card to a domain, or to none, as the toolstack does (`xc_assign_device`).
    /// - Throws: `ENODEV` without such a card, `EBUSY` if another domain has it, `ESRCH` without such a domain.
    public func assignCard(_ address: PCIAddress, to domain: DomainID?) throws(HypervisorFailure) {
        let error: Errno? = change { state in
            guard let card = state.cards[address] else { return .operationNotSupportedByDevice }
            guard let domain else {
                state.cards[address]?.owner = nil
                return nil
            }
            guard let serial = state.serials[domain] else { return .noSuchProcess }
            guard card.owner == nil || card.owner == serial else { return .resourceBusy }
            state.cards[address]?.owner = serial
            return nil
        }
        if let error { throw HypervisorFailure("assign \(address)", error) }
    }

    /// Interrupts that a domain has now, by number.
    public func interrupts(of domain: DomainID) -> [UInt32: MessageInterrupt] {
        change { state in state.serials[domain].flatMap { state.domains[$0]?.interrupts } ?? [:] }
    }

    /// How many interrupts a domain may have from now on.
    public func setInterruptLimit(_ limit: Int) { change { $0.interruptLimit = limit } }
}
