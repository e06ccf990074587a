// MSI and MSI-X: what reaches the hypervisor and the card, in which order, and that nothing is left of it.

internal import FrontendDrivers
internal import HostPCI
internal import Hypervisor
internal import SimulatedHost
internal import SimulatedHypervisor
internal import TestSupport
internal import Testing
internal import XenWire

@testable internal import PCIBackend

@Suite struct PCIInterruptTests {
    private typealias Place = SimulatedPCICard.Place

    @Test func msiIsMappedThenEnabledThenUndone() async throws {
        let scene = try await PCIScene()
        let card = try scene.card()
        let number = try await scene.frontend.enableMSI(Cards.first)
        #expect(scene.interrupts == [number: MessageInterrupt(Cards.network)])
        #expect(card.word(at: Place.msi + 2) & 1 == 1)
        // The pin is off.
        #expect(card.word(at: 4) & 0x0400 != 0)
        #expect(try await scene.detail("0000:08:05.0")?.contains("MSI") == true)
        try await scene.frontend.disableMSI(Cards.first)
        #expect(scene.interrupts.isEmpty)
        #expect(card.word(at: Place.msi + 2) & 1 == 0)
        #expect(card.word(at: 4) & 0x0400 == 0)
        // What is off is switched off once more without harm.
        try await scene.frontend.disableMSI(Cards.first)
        try await scene.end()
    }

    @Test func rowsOfTheTableGetTheirOwnInterrupts() async throws {
        let scene = try await PCIScene()
        let card = try scene.card()
        try await scene.frontend.write(0x0002, to: Cards.first, 0x04, 2)
        let vectors = try await scene.frontend.enableMSIX(Cards.first, [4, 0, 2])
        #expect(vectors.map(\.entry) == [4, 0, 2])
        let rows = vectors.map { scene.interrupts[UInt32($0.vector)] }
        // The table is in BAR 0.
        #expect(
            rows == [4, 0, 2].map { MessageInterrupt(Cards.network, row: .init(entry: $0, tableBase: 0xF7A0_0000)) }
        )
        #expect(card.word(at: Place.msix + 2) & 0xC000 == 0x8000)
        try await scene.frontend.disableMSIX(Cards.first)
        #expect(scene.interrupts.isEmpty)
        #expect(card.word(at: Place.msix + 2) & 0xC000 == 0)
        // Linux's driver that is loaded again: it ended MSI-X with the other operation.
        _ = try await scene.frontend.enableMSIX(Cards.first, [0])
        try await scene.frontend.disableMSI(Cards.first)
        #expect(scene.interrupts.isEmpty)
        #expect(try await scene.frontend.enableMSIX(Cards.first, [0, 1, 2]).count == 3)
        try await scene.frontend.disableMSIX(Cards.first)
        try await scene.end()
    }

    @Test func noRowsManyRowsAndRepeatedRowsAreRefused() async throws {
        let scene = try await PCIScene()
        try await scene.frontend.write(0x0002, to: Cards.first, 0x04, 2)
        let frontend = scene.frontend
        await scene.refuses(.invalidArgument) { _ = try await frontend.enableMSIX(Cards.first, []) }
        await scene.refuses(.invalidArgument) { _ = try await frontend.enableMSIX(Cards.first, [1, 1]) }
        await scene.refuses(.invalidArgument) { _ = try await frontend.enableMSIX(Cards.first, [5]) }
        await scene.refuses(.invalidArgument) {
            _ = try await frontend.enableMSIX(Cards.first, (0..<129).map { UInt16($0) })
        }
        #expect(scene.interrupts.isEmpty)
        #expect(try scene.card().word(at: Place.msix + 2) & 0xC000 == 0)
        try await scene.end()
    }

    @Test func oneKindExcludesTheOther() async throws {
        let scene = try await PCIScene()
        let frontend = scene.frontend
        // Its memory, where the table is, is off.
        await scene.refuses(.notPossible) { _ = try await frontend.enableMSIX(Cards.first, [0]) }
        try await frontend.write(0x0002, to: Cards.first, 0x04, 2)
        _ = try await frontend.enableMSI(Cards.first)
        await scene.refuses(.operationFailed) { _ = try await frontend.enableMSI(Cards.first) }
        await scene.refuses(.notPossible) { _ = try await frontend.enableMSIX(Cards.first, [0]) }
        try await frontend.disableMSI(Cards.first)
        _ = try await frontend.enableMSIX(Cards.first, [0])
        await scene.refuses(.already) { _ = try await frontend.enableMSIX(Cards.first, [0]) }
        await scene.refuses(.operationFailed) { _ = try await frontend.enableMSI(Cards.first) }
        #expect(scene.interrupts.count == 1)
        // Nor by the registers.
        await scene.refuses(.accessDenied) {
            try await frontend.write(0, to: Cards.first, Int32(Place.msix + 2), 2)
        }
        try await scene.end()
    }

    /// A virtual function's own COMMAND has no bit for its memory: its parent's counts, for Xen as for us.
    @Test func aVirtualFunctionsMemoryIsSwitchedByItsParent() async throws {
        let parent = Cards.host(PCIAddress(bus: 8, device: 0, function: 0)!)
        let scene = try await PCIScene { SimulatedPCICard($0, virtualFunctionOf: parent) }
        let frontend = scene.frontend
        try await frontend.write(0x0006, to: Cards.first, 0x04, 2)
        #expect(try scene.card().word(at: 4) == 0x0004)
        await scene.refuses(.deviceNotFound) { _ = try await frontend.enableMSIX(Cards.first, [0]) }
        let physical = SimulatedPCICard(parent)
        scene.cards.plug(physical)
        await scene.refuses(.notPossible) { _ = try await frontend.enableMSIX(Cards.first, [0]) }
        physical.set([0x06, 0x00], at: 4)
        #expect(try await frontend.enableMSIX(Cards.first, [0, 2]).count == 2)
        #expect(scene.interrupts.count == 2)
        try await frontend.disableMSIX(Cards.first)
        #expect(scene.interrupts.isEmpty)
        try await scene.end()
    }

    /// What is never disabled ends with the connection, and with the card.
    @Test func whatIsNeverDisabledEndsAllTheSame() async throws {
        let scene = try await PCIScene()
        try await scene.frontend.write(0x0006, to: Cards.first, 0x04, 2)
        _ = try await scene.frontend.enableMSIX(Cards.first, [0, 1, 2, 3, 4])
        try await scene.frontend.close()
        #expect(try await eventually { try await scene.backendKey("state") == "6" })
        #expect(scene.interrupts.isEmpty)
        #expect(try scene.card().word(at: Place.msix + 2) & 0xC000 == 0)
        #expect(try scene.card().word(at: 4) & 0x0404 == 0)
        try await scene.end()
    }

    @Test func aCardWithoutMessagesHasNone() async throws {
        let scene = try await PCIScene { SimulatedPCICard($0, hasMSI: false, rows: 0) }
        let frontend = scene.frontend
        try await frontend.write(0x0002, to: Cards.first, 0x04, 2)
        await scene.refuses(.operationFailed) { _ = try await frontend.enableMSI(Cards.first) }
        await scene.refuses(.notPossible) { _ = try await frontend.enableMSIX(Cards.first, [0]) }
        try await frontend.disableMSI(Cards.first)
        try await frontend.disableMSIX(Cards.first)
        try await scene.end()
    }

    @Test func whatTheHypervisorRefusesLeavesNothingBehind() async throws {
        let scene = try await PCIScene()
        let frontend = scene.frontend
        try await frontend.write(0x0002, to: Cards.first, 0x04, 2)
        let card = try scene.card()
        let before = card.bytes
        // The third of four is one too many for the domain.
        scene.machine.setInterruptLimit(2)
        await scene.refuses(.operationFailed) { _ = try await frontend.enableMSIX(Cards.first, [0, 1, 2, 3]) }
        #expect(scene.interrupts.isEmpty)
        #expect(card.bytes == before)
        // The card is somebody else's in the hypervisor's eyes.
        scene.machine.setInterruptLimit(100)
        try scene.machine.assignCard(Cards.network, to: nil)
        await scene.refuses(.operationFailed) { _ = try await frontend.enableMSI(Cards.first) }
        #expect(card.bytes == before)
        #expect(scene.log.count("is the card assigned to the domain") == 1)
        try scene.machine.assignCard(Cards.network, to: guestDomain)
        _ = try await frontend.enableMSIX(Cards.first, [0, 1, 2, 3])
        #expect(scene.interrupts.count == 4)
        try await scene.end()
    }

    @Test func severalMessagesAreRefusedAsTheKernelDoes() async throws {
        let scene = try await PCIScene()
        await scene.refuses(.notImplemented) {
            _ = try await scene.frontend.operate(PCIFrontOperation(.enableMultiMSI, Cards.first, value: 2))
        }
        try await scene.end()
    }
}
