// Cards of a guest from its beginning to its end: handshake, scan, hot add and remove, and how the host finds them afterwards.

internal import FrontendDrivers
internal import HostPCI
internal import Hypervisor
internal import SimulatedHost
internal import SimulatedHypervisor
internal import TestSupport
internal import Testing
internal import XenWire

@testable internal import PCIBackend

@Suite struct PCILifecycleTests {
    @Test func aGuestFindsItsCardAndReadsIt() async throws {
        let scene = try await PCIScene()
        #expect(try await scene.backendKey("state") == "4")
        #expect(try await scene.backendKey("vdev-0") == "0000:00:00.00")
        #expect(try await scene.backendKey("state-0") == "3")
        #expect(try await scene.backendKey("root_num") == "1")
        #expect(try await scene.backendKey("root-0") == "0000:00")
        let found = await scene.frontend.functions
        #expect(
            found == [PCIGuestFunction(address: Cards.first, vendor: 0x8086, product: 0x10D3, classCode: 0x020000)]
        )
        // The interrupt is the host's; the BAR sizes itself.
        #expect(try await scene.frontend.read(Cards.first, 0x3C, 1) == 17)
        try await scene.frontend.write(.max, to: Cards.first, 0x10, 4)
        #expect(try await scene.frontend.read(Cards.first, 0x10, 4) == 0xFFFE_0000)
        try await scene.frontend.write(0xF7A0_0000, to: Cards.first, 0x10, 4)
        #expect(try await scene.frontend.read(Cards.first, 0x10, 4) == 0xF7A0_0000)
        #expect(try scene.card().ledger.writes.isEmpty)
        #expect(try await scene.detail("0000:08:05.0")?.contains("0000:00:00.0 in the guest") == true)
        try await scene.end()
    }

    @Test func functionsOfOneDeviceStayTogether() async throws {
        let scene = try await PCIScene([Cards.network, Cards.disk, Cards.second])
        #expect(try await scene.backendKey("vdev-1") == "0000:00:01.00")
        #expect(try await scene.backendKey("vdev-2") == "0000:00:00.01")
        #expect(
            await scene.frontend.functions.map { "\($0.address)" } == ["0000:00:00.0", "0000:00:00.1", "0000:00:01.0"]
        )
        try await scene.end()
    }

    @Test func aPassedThroughBusIsTheHosts() async throws {
        let scene = try await PCIScene(settings: PCISettings(mode: .passthrough))
        #expect(try await scene.backendKey("root-0") == "0000:08")
        #expect(await scene.frontend.functions.map(\.address) == [Cards.network])
        try await scene.end()
    }

    /// libxl writes a guest's cards one by one, and no 7 before the guest runs.
    @Test func cardsThatAreAddedWhileTheGuestIsBuiltAreThere() async throws {
        let scene = try await PCIScene(connects: false)
        #expect(try await eventually { try await scene.backendKey("state") == "2" })
        try scene.plug(Cards.disk, assigned: true)
        try await scene.toolstack.addCard(Cards.disk, to: scene.nodes, starting: true)
        #expect(try await eventually { try await scene.backendKey("state-1") == "3" })
        try await scene.frontend.connect()
        #expect(await scene.frontend.functions.count == 2)
        try await scene.end()
    }

    /// A guest with a device model never connects; its cards are ours to keep from others all the same.
    @Test func cardsOfAGuestWithoutPcifrontComeAndGo() async throws {
        let scene = try await PCIScene(connects: false)
        #expect(try await eventually { try await scene.backendKey("state") == "2" })
        try scene.plug(Cards.disk, assigned: true)
        let directory = scene.nodes.backend
        try await scene.toolstack.addCard(Cards.disk, to: scene.nodes, starting: true)
        try await scene.host.store.write("\(directory)/state", "7")
        #expect(await eventually { scene.cards.owner(of: Cards.host(Cards.disk)) != nil })
        #expect(try await eventually { try await scene.backendKey("state") == "2" })
        // libxl waits for nobody: it marks the card, and takes it from the list.
        try await scene.host.store.write("\(directory)/state-1", "5")
        try await scene.host.store.write("\(directory)/state", "7")
        #expect(await eventually { scene.cards.owner(of: Cards.host(Cards.disk)) == nil })
        #expect(try await eventually { try await scene.backendKey("state") == "2" })
        #expect(scene.cards.owner(of: Cards.host(Cards.network)) != nil)
        try await scene.end()
    }

    @Test func cardsComeAndGoWhileTheGuestRuns() async throws {
        let scene = try await PCIScene()
        try scene.plug(Cards.disk, assigned: true)
        for _ in 0..<5 {
            try await scene.toolstack.addCard(Cards.disk, to: scene.nodes)
            #expect(await eventually { await scene.frontend.functions.count == 2 })
            try await scene.isSettled()
            #expect(scene.cards.owner(of: Cards.host(Cards.disk)) == "backend/pci/7/0")
            _ = try await scene.frontend.enableMSI(PCIAddress(bus: 0, device: 1, function: 0)!)
            #expect(scene.interrupts.count == 1)
            try await scene.toolstack.removeCard(Cards.disk, from: scene.nodes)
            #expect(await scene.frontend.functions.count == 1)
            // It is free, reset, and its interrupt is gone.
            #expect(scene.cards.owner(of: Cards.host(Cards.disk)) == nil)
            #expect(scene.cards.lastUser(of: Cards.host(Cards.disk)) == nil)
            #expect(scene.interrupts.isEmpty)
        }
        #expect(try scene.card(Cards.disk).ledger.resets == 5)
        // The first card never noticed.
        #expect(try scene.card().ledger.resets == 0)
        #expect(try await scene.frontend.read(Cards.first, 0, 4) == 0x10D3_8086)
        try await scene.end()
    }

    /// The toolstack's list is numbered anew when its first card goes.
    @Test func theFirstOfTwoCardsGoes() async throws {
        let scene = try await PCIScene([Cards.network, Cards.disk])
        try await scene.toolstack.removeCard(Cards.network, from: scene.nodes)
        #expect(try await scene.backendKey("vdev-0") == "0000:00:01.00")
        #expect(await scene.frontend.functions.map { "\($0.address)" } == ["0000:00:01.0"])
        // A driver that is loaded again finds what is there now.
        try await scene.frontend.close()
        try await scene.frontend.reconnect()
        #expect(try await scene.backendKey("vdev-0") == "0000:00:01.00")
        #expect(try await scene.backendKey("vdev-1") == nil)
        #expect(await scene.frontend.functions.count == 1)
        try await scene.end()
    }

    @Test func aGuestThatEndsLeavesItsCardAsItWas() async throws {
        let scene = try await PCIScene()
        let card = try scene.card()
        let before = card.bytes
        // Bus master, memory, cache line, MSI-X, D3hot.
        try await scene.frontend.write(0x0006, to: Cards.first, 0x04, 2)
        try await scene.frontend.write(0x10, to: Cards.first, 0x0C, 1)
        _ = try await scene.frontend.enableMSIX(Cards.first, [0, 1, 2])
        try await scene.frontend.write(3, to: Cards.first, Int32(SimulatedPCICard.Place.powerManagement + 4), 2)
        #expect(scene.interrupts.count == 3)
        try await scene.remove()
        #expect(scene.interrupts.isEmpty)
        #expect(card.bytes == before)
        #expect(card.ledger.resets == 1)
        #expect(scene.cards.owner(of: Cards.host(Cards.network)) == nil)
    }

    @Test func aDomainThatDiesLeavesItsCardAsItWas() async throws {
        let scene = try await PCIScene()
        let card = try scene.card()
        let before = card.bytes
        try await scene.frontend.write(0x0006, to: Cards.first, 0x04, 2)
        _ = try await scene.frontend.enableMSI(Cards.first)
        try scene.machine.destroyDomain(guestDomain)
        try await scene.remove()
        #expect(card.bytes == before)
        #expect(card.ledger.resets == 1)
        // That the domain's interrupts went with it is no failure.
        #expect(scene.log.count("unmap interrupt") == 0)
    }

    @Test func aDriverThatIsLoadedAgainBeginsAnew() async throws {
        let scene = try await PCIScene()
        _ = try await scene.frontend.enableMSI(Cards.first)
        try await scene.frontend.write(.max, to: Cards.first, 0x10, 4)
        try await scene.frontend.write(0x0006, to: Cards.first, 0x04, 2)
        await scene.frontend.abandon()
        try await scene.frontend.resetAndConnect()
        #expect(scene.interrupts.isEmpty)
        #expect(try scene.card().word(at: 4) & 0x0404 == 0)
        #expect(try await scene.frontend.read(Cards.first, 0x10, 4) == 0xF7A0_0000)
        _ = try await scene.frontend.enableMSI(Cards.first)
        #expect(scene.interrupts.count == 1)
        try await scene.end()
    }
}
