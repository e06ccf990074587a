// The machine as keeper of cards and their interrupts: what Xen checks before a domain gets one.

internal import Hypervisor
internal import SystemPackage
internal import XenWire

extension MachineState {
    /// Pirqs of a domain that are not lines of the host's interrupt controllers.
    static let defaultInterruptLimit = 200
    /// Numbers are given from the top (xen/arch/x86/irq.c, `get_free_pirq`).
    private static let highestInterrupt: UInt32 = 1023

    /// A card as Xen knows it.
    struct Card: Sendable {
        /// What dom0 said of it. It is prepared if the stub asked for that when it took the card (`PHYSDEVOP_prepare_msix`).
        var facts: SimulatedCardFacts
        /// The living domain that it is assigned to, by serial.
        var owner: UInt64?
    }

    mutating func answerInterrupts(
        _ call: SimulatedCall,
        _ request: inout MessageReader,
        _ session: Session
    ) throws(Errno) -> MachineReply {
        let domain = try request.domain()
        var reply = MachineReply()
        if call == .mapInterrupt {
            reply.message.put(try mapInterrupt(try request.message(), for: domain, by: session.caller))
        } else {
            try unmapInterrupt(try request.integer(), of: domain, by: session.caller)
        }
        return reply
    }

    /// xen/arch/x86/physdev.c, `physdev_map_pirq`; irq.c, `map_domain_pirq`; msi.c, `__pci_enable_msi` and
    /// `msix_capability_init`.
    private mutating func mapInterrupt(
        _ message: MessageInterrupt,
        for id: DomainID,
        by caller: StoreCaller
    ) throws(Errno) -> UInt32 {
        guard let serial = serials[id], let domain = domains[serial] else { throw .noSuchProcess }
        guard caller.privileged else { throw .notPermitted }
        let taken = Set(domain.interrupts.keys)
        let lowest = MachineState.highestInterrupt - UInt32(clamping: interruptLimit) + 1
        guard let free = (lowest...MachineState.highestInterrupt).reversed().first(where: { !taken.contains($0) })
        else {
            throw .noSpace
        }
        guard let card = cards[message.card], card.owner == serial else { throw .operationNotSupportedByDevice }
        if let row = message.row {
            guard card.facts.rows > 0 else { throw .operationNotSupportedByDevice }
            guard Int(row.entry) < card.facts.rows else { throw .invalidArgument }
            // ENXIO
            guard card.facts.decodesMemory() else { throw .noSuchAddressOrDevice }
            guard card.facts.isPrepared else { throw .noData }
        } else {
            guard card.facts.hasMSI else { throw .operationNotSupportedByDevice }
        }
        // Xen would let a row be mapped twice, and switch MSI off for MSI-X with a warning: no backend of ours asks for it.
        let others = domain.interrupts.values.filter { $0.card == message.card }
        guard
            !others.contains(where: { $0.row?.entry == message.row?.entry || ($0.row == nil) != (message.row == nil) })
        else { throw .fileExists }
        domains[serial]?.interrupts[free] = message
        return free
    }

    private mutating func unmapInterrupt(_ number: UInt32, of id: DomainID, by caller: StoreCaller) throws(Errno) {
        guard let serial = serials[id] else { throw .noSuchProcess }
        guard caller.privileged else { throw .notPermitted }
        guard domains[serial]?.interrupts.removeValue(forKey: number) != nil else { throw .invalidArgument }
    }

    mutating func releaseCards(of serial: UInt64) {
        domains[serial]?.interrupts = [:]
        for (address, card) in cards where card.owner == serial { cards[address]?.owner = nil }
    }
}
