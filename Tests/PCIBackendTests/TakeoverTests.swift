// A worker that dies and its successor: the guest's cards go on, and an operation is answered once.

internal import BackendCore
internal import FrontendDrivers
internal import HostPCI
internal import Hypervisor
internal import SharedRing
internal import SimulatedHost
internal import SimulatedHypervisor
internal import TestSupport
internal import Testing
internal import XenWire

@testable internal import PCIBackend

@Suite struct PCITakeoverTests {
    private typealias Place = SimulatedPCICard.Place

    @Test func theGuestsViewOutlivesTheWorker() async throws {
        let scene = try await PCIScene([Cards.network, Cards.disk])
        let card = try scene.card()
        let before = card.bytes
        try await scene.frontend.write(0x0142, to: Cards.first, 0x04, 2)
        try await scene.frontend.write(.max, to: Cards.first, 0x10, 4)
        let vectors = try await scene.frontend.enableMSIX(Cards.first, [1, 3])
        let interrupts = scene.interrupts
        for peaceful in [false, true, false] {
            if peaceful { try await scene.retire() } else { try await scene.kill() }
            // DMA and interrupts go on without us.
            #expect(scene.interrupts == interrupts)
            #expect(card.word(at: Place.msix + 2) & 0x8000 != 0)
            scene.revive()
            // It was asking for the size of BAR 0, and wrote COMMAND.
            #expect(try await scene.frontend.read(Cards.first, 0x10, 4) == 0xFFFE_0000)
            #expect(try await scene.frontend.read(Cards.first, 0x04, 2) & 0x0142 == 0x0142)
            #expect(try await scene.backendKey("state") == "4")
            #expect(await scene.frontend.functions.count == 2)
        }
        #expect(card.ledger.resets == 0)
        #expect(scene.interrupts == interrupts)
        await scene.refuses(.already) { _ = try await scene.frontend.enableMSIX(Cards.first, [1, 3]) }
        try await scene.frontend.disableMSIX(Cards.first)
        #expect(scene.interrupts.isEmpty)
        #expect(vectors.count == 2)
        // What the first worker found is what the last one leaves.
        try await scene.remove()
        #expect(card.bytes == before)
    }

    /// A configuration access waits while there is no worker, and is answered by the next one.
    @Test func anOperationWaitsForTheSuccessor() async throws {
        let scene = try await PCIScene()
        for _ in 0..<3 {
            try await scene.kill()
            let reading = Task { try await scene.frontend.read(Cards.first, 0, 4) }
            let page = try #require(await scene.frontend.rawPage)
            #expect(await eventually { page.isActive })
            scene.revive()
            #expect(try await reading.value == 0x10D3_8086)
        }
        try await scene.end()
    }

    /// An enabling that was being carried out when the worker died: one row of two was mapped, MSI-X on and masked.
    @Test func whatWasInTheMidstOfItIsDoneByTheSuccessor() async throws {
        let scene = try await PCIScene()
        let card = try scene.card()
        try await scene.frontend.write(0x0002, to: Cards.first, 0x04, 2)
        let state = try await scene.journalState()
        var memory = try #require(PCICardMemory.cards(from: state.load()).first)
        try await scene.kill()
        let row = MessageInterrupt.Row(entry: 0, tableBase: 0xF7A0_0000)
        let lost = try scene.host.interrupts.map(MessageInterrupt(Cards.network, row: row), for: guestDomain)
        memory.stage = .enabling
        memory.mapped = [PCIVectorMapping(entry: 0, interrupt: lost)]
        state.save(PCICardMemory.bytes(of: [memory]))
        card.set([0x04, 0xC0], at: Place.msix + 2)
        let enabling = Task { try await scene.frontend.enableMSIX(Cards.first, [0, 1]) }
        let page = try #require(await scene.frontend.rawPage)
        #expect(await eventually { page.isActive })
        scene.revive()
        #expect(try await enabling.value.count == 2)
        // The predecessor's is not left over: the same row twice would have been refused.
        #expect(scene.interrupts.count == 2)
        #expect(card.word(at: Place.msix + 2) & 0xC000 == 0x8000)
        try await scene.end()
    }

    @Test func aSuccessorWithoutAJournalBelievesTheCard() async throws {
        let scene = try await PCIScene()
        _ = try await scene.frontend.enableMSI(Cards.first)
        let journal = try scene.backend.journalPath
        try await scene.kill()
        RequestJournal.remove(at: journal)
        scene.revive()
        await scene.refuses(.operationFailed) { _ = try await scene.frontend.enableMSI(Cards.first) }
        try await scene.frontend.disableMSI(Cards.first)
        #expect(try scene.card().word(at: Place.msi + 2) & 1 == 0)
        try await scene.end()
    }

    @Test func aSuccessorGoesOnInTheMidstOfAChange() async throws {
        let scene = try await PCIScene()
        try scene.plug(Cards.disk, assigned: true)
        scene.cards.holdTaking(true)
        try await scene.toolstack.addCard(Cards.disk, to: scene.nodes)
        #expect(try await eventually { try await scene.frontendKey("state") == "7" })
        scene.cards.holdTaking(false)
        try await scene.isSettled()
        // Once more, with a death in between.
        try await scene.toolstack.removeCard(Cards.disk, from: scene.nodes)
        try await scene.isSettled()
        try await scene.kill()
        try await scene.toolstack.addCard(Cards.disk, to: scene.nodes)
        #expect(try await eventually { try await scene.frontendKey("state") == "7" })
        scene.revive()
        try await scene.isSettled()
        #expect(await eventually { await scene.frontend.functions.count == 2 })
        try await scene.end()
    }

    /// Two enablings of which nobody knows whether the first was told.
    @Test func anEnablingIsToldOnce() async throws {
        let scene = try await PCIScene()
        let number = try await scene.frontend.enableMSI(Cards.first)
        try await scene.kill()
        // The page as it was just before the flag was cleared.
        let again = Task { try await scene.frontend.enableMSI(Cards.first) }
        let page = try #require(await scene.frontend.rawPage)
        #expect(await eventually { page.isActive })
        scene.revive()
        #expect(try await again.value == number)
        #expect(scene.interrupts.count == 1)
        try await scene.end()
    }

    @Test func memoriesAreReadAsTheyWereWritten() throws {
        let card = SimulatedPCIHost()
        let address = Cards.host(Cards.network)
        card.plug(SimulatedPCICard(address))
        let open = try card.take(address, owner: "x", isTakeover: false)
        var guest = PCIGuestCard(Cards.network, PCIOptions(), open, PCISettings())
        guest.mapped = [
            PCIVectorMapping(entry: 7, interrupt: PhysicalInterrupt(900)),
            PCIVectorMapping(entry: 2047, interrupt: PhysicalInterrupt(1023)),
        ]
        guest.interrupts = .messages(PCIVectorMapping.vectors(guest.mapped))
        let memory = PCICardMemory(guest, .enabled)
        let bytes = PCICardMemory.bytes(of: [memory, memory])
        #expect(PCICardMemory.cards(from: bytes) == [memory, memory])
        // Any part of it is read without a trap.
        for count in 0..<bytes.count { #expect(PCICardMemory.cards(from: Array(bytes.prefix(count))).count <= 1) }
        #expect(PCICardMemory.cards(from: [UInt8](repeating: 0xFF, count: 4096)).isEmpty)
    }
}
