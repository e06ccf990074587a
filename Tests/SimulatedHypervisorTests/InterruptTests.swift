// Interrupts of cards: what the machine refuses, and what is gone when.

internal import Hypervisor
internal import SimulatedHypervisor
internal import Synchronization
internal import SystemPackage
internal import TestSupport
internal import Testing
internal import XenWire

@Suite struct InterruptTests {
    private static let card = PCIAddress(bus: 8, device: 5, function: 0)!

    private func machine(_ facts: SimulatedCardFacts = SimulatedCardFacts(rows: 4)) throws -> SimulatedMachine {
        let machine = try machineWithGuests()
        machine.addCard(Self.card, facts)
        try machine.assignCard(Self.card, to: guestDomain)
        return machine
    }

    private func row(_ entry: UInt16) -> MessageInterrupt {
        MessageInterrupt(Self.card, row: .init(entry: entry, tableBase: 0xF000_0000))
    }

    private func error<Result>(_ body: () throws(HypervisorFailure) -> Result) -> Errno? {
        do throws(HypervisorFailure) {
            _ = try body()
            return nil
        } catch {
            return error.errno
        }
    }

    @Test func numbersAreGivenFromTheTopAndTakenBack() throws {
        let machine = try machine()
        let interrupts = try machine.hypervisor(for: .initial).interrupts
        let first = try interrupts.map(row(0), for: guestDomain)
        let second = try interrupts.map(row(3), for: guestDomain)
        #expect(first.rawValue == 1023 && second.rawValue == 1022)
        #expect(machine.interrupts(of: guestDomain) == [1023: row(0), 1022: row(3)])
        try interrupts.unmap(first, of: guestDomain)
        #expect(
            error { () throws(HypervisorFailure) in try interrupts.unmap(first, of: guestDomain) } == .invalidArgument
        )
        // Whoever asked may be dead: another process takes it away.
        try machine.hypervisor(for: .initial).interrupts.unmap(second, of: guestDomain)
        #expect(machine.interrupts(of: guestDomain).isEmpty)
    }

    @Test func whatXenRefuses() throws {
        let machine = try machine()
        let interrupts = try machine.hypervisor(for: .initial).interrupts
        #expect(
            error { () throws(HypervisorFailure) in try interrupts.map(row(4), for: guestDomain) } == .invalidArgument
        )
        // Not its card.
        #expect(error { () throws(HypervisorFailure) in try interrupts.map(row(0), for: otherDomain) }?.rawValue == 19)
        let nobody = DomainID(99)!
        #expect(error { () throws(HypervisorFailure) in try interrupts.map(row(0), for: nobody) } == .noSuchProcess)
        // Not privileged.
        let guest = try machine.hypervisor(for: guestDomain).interrupts
        #expect(error { () throws(HypervisorFailure) in try guest.map(row(0), for: guestDomain) } == .notPermitted)
        machine.setInterruptLimit(1)
        let only = try interrupts.map(row(0), for: guestDomain)
        #expect(error { () throws(HypervisorFailure) in try interrupts.map(row(1), for: guestDomain) } == .noSpace)
        machine.setInterruptLimit(10)
        // Harsher than Xen.
        #expect(error { () throws(HypervisorFailure) in try interrupts.map(row(0), for: guestDomain) } == .fileExists)
        let message = MessageInterrupt(Self.card)
        #expect(error { () throws(HypervisorFailure) in try interrupts.map(message, for: guestDomain) } == .fileExists)
        try interrupts.unmap(only, of: guestDomain)
    }

    @Test func aCardThatWasNotPreparedHasNoRows() throws {
        let machine = try machine(SimulatedCardFacts(hasMSI: false, rows: 4, isPrepared: false))
        let interrupts = try machine.hypervisor(for: .initial).interrupts
        #expect(error { () throws(HypervisorFailure) in try interrupts.map(row(0), for: guestDomain) }?.rawValue == 61)
        let message = MessageInterrupt(Self.card)
        #expect(error { () throws(HypervisorFailure) in try interrupts.map(message, for: guestDomain) }?.rawValue == 19)
    }

    @Test func rowsNeedTheCardsMemory() throws {
        let isOn = Mutex(false)
        let machine = try machine(SimulatedCardFacts(rows: 4) { isOn.withLock { $0 } })
        let interrupts = try machine.hypervisor(for: .initial).interrupts
        #expect(error { () throws(HypervisorFailure) in try interrupts.map(row(0), for: guestDomain) }?.rawValue == 6)
        let message = try interrupts.map(MessageInterrupt(Self.card), for: guestDomain)
        try interrupts.unmap(message, of: guestDomain)
        isOn.withLock { $0 = true }
        _ = try interrupts.map(row(0), for: guestDomain)
    }

    @Test func aDomainsEndTakesEverythingBack() throws {
        let machine = try machine()
        let interrupts = try machine.hypervisor(for: .initial).interrupts
        _ = try interrupts.map(row(0), for: guestDomain)
        #expect(throws: HypervisorFailure.self) { try machine.assignCard(Self.card, to: otherDomain) }
        try machine.destroyDomain(guestDomain)
        try machine.createDomain(guestDomain)
        #expect(machine.interrupts(of: guestDomain).isEmpty)
        try machine.assignCard(Self.card, to: otherDomain)
        _ = try interrupts.map(row(0), for: otherDomain)
    }
}
