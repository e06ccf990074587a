// Frontends that do not behave, and hosts that do not answer: bad numbers, a page that changes, cards that hang and go.

internal import BackendCore
internal import FrontendDrivers
internal import HostIO
internal import HostPCI
internal import Hypervisor
internal import SimulatedHost
internal import SimulatedHypervisor
internal import TestSupport
internal import Testing
internal import XenWire

@testable internal import PCIBackend

@Suite struct PCIHostileTests {
    private typealias Place = SimulatedPCICard.Place

    @Test(
        arguments: [
            (-1, 1), (-4, 4), (Int32.min, 4), (1, 2), (2, 4), (3, 4), (4096, 4), (4095, 2), (Int32.max, 1), (0, 0),
            (0, 3),
            (0, 8), (0, -1), (0, Int32.max), (0x10, Int32.min),
        ] as [(Int32, Int32)]
    )
    func offsetsAndSizesThatMakeNoSense(_ offset: Int32, _ size: Int32) async throws {
        let scene = try await PCIScene()
        let reads = try scene.card().ledger.reads
        for command in [PCICommand.read, .write] {
            await scene.refuses(.invalidOffset) {
                _ = try await scene.frontend.operate(
                    PCIFrontOperation(command, Cards.first, offset: offset, size: size, value: .max)
                )
            }
        }
        #expect(try scene.card().ledger.reads == reads)
        #expect(try await scene.frontend.read(Cards.first, 0, 4) == 0x10D3_8086)
        try await scene.end()
    }

    @Test func placesAndCommandsThatThereAreNot() async throws {
        let scene = try await PCIScene()
        var operation = PCIFrontOperation(.read, Cards.first, offset: 0, size: 4)
        for change in [
            { (operation: inout PCIFrontOperation) in operation.domain = 1 }, { $0.bus = 8 }, { $0.devfn = 8 },
            { $0.domain = .max }, { $0.bus = 256 }, { $0.devfn = 256 }, { $0.devfn = .max },
        ] {
            var wrong = operation
            change(&wrong)
            let sent = wrong
            await scene.refuses(.deviceNotFound) { _ = try await scene.frontend.operate(sent) }
        }
        for command in [6, 7, 8, 9, 10, 11, UInt32.max] {
            operation.command = command
            let sent = operation
            await scene.refuses(.notImplemented) { _ = try await scene.frontend.operate(sent) }
        }
        #expect(try await scene.backendKey("state") == "4")
        try await scene.end()
    }

    /// Every byte of the space, with four patterns and in all three widths: what the policy keeps does not change, neither in
    /// the card nor for the guest.
    @Test(arguments: [1, 2, 4]) func everyByteIsWritten(_ size: Int32) async throws {
        let scene = try await PCIScene()
        let card = try scene.card()
        let before = card.bytes
        let report = try await PCISweep(scene.frontend, Cards.first).run(size: size)
        #expect(report.writes == 4 * 4096 / Int(size))
        let after = card.bytes
        let changed = (0..<4096).filter { before[$0] != after[$0] }
        // COMMAND, cache line, power management, VPD's address, and nothing else.
        let open: Set<Int> = [0x04, 0x05, 0x0C, Place.powerManagement + 4, Place.powerManagement + 5]
        #expect(
            Set(changed).subtracting(open).subtracting([Place.vitalProductData + 2, Place.vitalProductData + 3]).isEmpty
        )
        #expect(before[0x10..<0x28] == after[0x10..<0x28])
        #expect(scene.interrupts.isEmpty)
        // Each unlisted write was worth a line, within the limits of the log.
        #expect(scene.log.count("which the policy does not list") <= 8)
        #expect(try await scene.counter("unlisted") > 1000 / UInt64(size))
        try await scene.end()
    }

    @Test func aPermissiveCardsGuestWritesWhatIsNotListed() async throws {
        var options = PCIOptions()
        options.permissive = true
        let scene = try await PCIScene(options: options)
        let register = Int32(Place.express + 16)
        for value: UInt32 in [0x40, 0x41, 0x40] { try await scene.frontend.write(value, to: Cards.first, register, 2) }
        #expect(try scene.card().word(at: Int(register)) == 0x40)
        #expect(scene.log.count("let through (permissive)") == 1)
        // It may do that: it is no fault of the guest's.
        #expect(scene.log.count("frontend fault") == 0)
        #expect(try await scene.backend.report().lastFault == nil)
        // Messages stay the hypervisor's.
        let messages = Int32(Place.msi + 4)
        try await scene.frontend.write(0xFEE0_0000, to: Cards.first, messages, 4)
        #expect(try scene.card().bytes[Place.msi + 4..<Place.msi + 8].allSatisfy { $0 == 0 })
        try await scene.end()
    }

    @Test func powerStatesAreGoneThroughAndTheWayBackRestores() async throws {
        let scene = try await PCIScene()
        let register = Int32(Place.powerManagement + 4)
        try await scene.frontend.write(0x0002, to: Cards.first, 0x04, 2)
        for state: UInt32 in [1, 2, 3] {
            try await scene.frontend.write(state, to: Cards.first, register, 2)
            #expect(try await scene.frontend.read(Cards.first, register, 2) & 3 == state)
        }
        // From a deeper sleep there is only the way to D0.
        await scene.refuses(.accessDenied) { try await scene.frontend.write(1, to: Cards.first, register, 2) }
        try await scene.frontend.write(0, to: Cards.first, register, 2)
        #expect(try await scene.frontend.read(Cards.first, register, 2) & 3 == 0)
        #expect(try await scene.frontend.read(Cards.first, 0x10, 4) == 0xF7A0_0000)
        try await scene.end()
    }

    /// The page is rewritten while the operation is carried out: what was taken counts, and only once.
    @Test func thePageChangesMeanwhile() async throws {
        let scene = try await PCIScene()
        let card = try scene.card()
        let page = try #require(await scene.frontend.rawPage)
        card.hang()
        let reading = Task { try await scene.frontend.read(Cards.first, 0x2C, 4) }
        #expect(try await eventually { try await scene.backend.report().phase == "waiting for 0000:08:05.0" })
        // A write of BAR 0, to a device that is not there, with a size that is none.
        page.write(PCIFrontOperation(.write, Cards.network, offset: -4, size: 77, value: 0xDEAD_BEEF))
        card.goOn()
        // pcifront had not given up, but it is another operation now: it is taken as that.
        await scene.refuses(.deviceNotFound) { _ = try await reading.value }
        #expect(card.ledger.writes.isEmpty)
        #expect(try await scene.counter("given-up") == 1)
        try await scene.end()
    }

    /// pcifront gives up after two seconds and begins the next operation: that one gets no answer of the last one's.
    @Test func aLateAnswerIsNotTheNextOnes() async throws {
        let scene = try await PCIScene()
        let card = try scene.card()
        let page = try #require(await scene.frontend.rawPage)
        card.hang()
        page.put(PCIFrontOperation(.read, Cards.first, offset: 0, size: 4))
        await scene.frontend.ring()
        #expect(try await eventually { try await scene.backend.report().phase.hasPrefix("waiting for 0000:08:05.0") })
        page.giveUp()
        let next = Task { try await scene.frontend.read(Cards.first, 8, 4) }
        #expect(await eventually { page.isActive })
        card.goOn()
        #expect(try await next.value == 0x0200_0001)
        #expect(try await scene.counter("given-up") == 1)
        try await scene.end()
    }

    /// Operations without end, and events without operations: others get their turn, and the device closes in the midst of it.
    @Test func aStormOfOperationsAndEvents() async throws {
        let scene = try await PCIScene()
        let storm = Task {
            var count = 0
            while !Task.isCancelled {
                _ = try await scene.frontend.read(Cards.first, 0, 4)
                count += 1
            }
            return count
        }
        let noise = Task {
            while !Task.isCancelled {
                await scene.frontend.ring()
                await Task.yield()
            }
        }
        #expect(try await eventually { try await scene.counter("reads") > 2000 })
        #expect(try await scene.counter("host-failures") == 0)
        try scene.plug(Cards.disk, assigned: true)
        try await scene.toolstack.addCard(Cards.disk, to: scene.nodes)
        try await scene.isSettled()
        storm.cancel()
        noise.cancel()
        #expect(try await storm.value > 2000)
        try await scene.end()
    }

    @Test func operationsWhileItCloses() async throws {
        let scene = try await PCIScene()
        let storm = Task { while true { _ = try await scene.frontend.read(Cards.first, 0, 4) } }
        #expect(try await eventually { try await scene.counter("reads") > 100 })
        try await scene.remove()
        #expect(scene.cards.owner(of: Cards.host(Cards.network)) == nil)
        await scene.frontend.abandon()
        await #expect(throws: FrontendFailure.self) { try await storm.value }
    }

    @Test func keysThatMakeNoSense() async throws {
        for (key, value) in [
            ("magic", "8"), ("magic", nil), ("pci-op-ref", "x"), ("pci-op-ref", nil), ("event-channel", "0"),
            ("event-channel", "-1"),
        ] {
            let scene = try await PCIScene(connects: false)
            #expect(try await eventually { try await scene.backendKey("state") == "2" })
            let bus = FrontendBus(store: scene.guest.store, path: "device/pci/0")
            var keys: [String: String?] = ["magic": "7", "pci-op-ref": "8", "event-channel": "1"]
            keys[key] = value
            try await bus.publish(keys.map { ($0.key, $0.value) } + [("state", "3")])
            #expect(try await eventually { try await scene.errorNode()?.contains(key) ?? false }, "\(key)")
            #expect(try await eventually { try await ["5", "6"].contains(scene.backendKey("state")) })
            try await scene.end()
        }
    }

    // MARK: hosts

    @Test func aCardIsPulledOut() async throws {
        let scene = try await PCIScene([Cards.network, Cards.disk])
        _ = try await scene.frontend.enableMSI(Cards.first)
        scene.cards.unplug(Cards.host(Cards.network))
        await scene.refuses(.deviceNotFound) { _ = try await scene.frontend.read(Cards.first, 0, 4) }
        // The other one is there still, and the toolstack takes the first one away.
        #expect(try await scene.frontend.read(PCIAddress(bus: 0, device: 1, function: 0)!, 0, 4) == 0x10D3_8086)
        try await scene.toolstack.removeCard(Cards.network, from: scene.nodes)
        #expect(scene.interrupts.isEmpty)
        try await scene.end()
    }

    /// Two guests ask for one card at the same moment: one gets it, the other is told who.
    @Test func aCardThatAnotherGuestHasIsRefusedByName() async throws {
        let scene = try await PCIScene(settings: PCISettings(patience: .milliseconds(200)))
        try scene.plug(Cards.disk, assigned: true)
        let other = try scene.cards.take(Cards.host(Cards.disk), owner: "backend/pci/9/0", isTakeover: false)
        try await scene.toolstack.addCard(Cards.disk, to: scene.nodes)
        try await scene.isSettled()
        #expect(try await eventually { try await scene.backendKey("state-1") == "6" })
        #expect(try await scene.errorNode()?.contains("backend/pci/9/0") == true)
        #expect(try await scene.detail("0000:08:06.0")?.contains("belongs to backend/pci/9/0") == true)
        // The guest's other card goes on.
        #expect(await scene.frontend.functions.count == 1)
        #expect(try await scene.frontend.read(Cards.first, 0, 4) == 0x10D3_8086)
        _ = try other.finish()
        try await scene.end()
    }

    @Test func aCardThatCannotBeResetStaysInQuarantine() async throws {
        let scene = try await PCIScene()
        let card = try scene.card()
        card.failResets(true)
        try await scene.remove()
        #expect(scene.cards.lastUser(of: Cards.host(Cards.network)) == "backend/pci/7/0")
        #expect(scene.log.count("stays in quarantine") == 1)
        let host = scene.cards
        let address = Cards.host(Cards.network)
        let refusal = #expect(throws: HostFailure.self) {
            _ = try host.take(address, owner: "backend/pci/8/0", isTakeover: false)
        }
        #expect(refusal?.kind == .denied)
        #expect(refusal?.text.contains("backend/pci/7/0") == true)
        // As soon as it can be reset, it can be had.
        card.failResets(false)
        _ = try host.take(address, owner: "backend/pci/8/0", isTakeover: false)
    }

    /// sysfs's files fail, or read short: the guest is told, the log once.
    @Test func aHostThatFailsIsAnErrorOfTheOperation() async throws {
        let scene = try await PCIScene()
        let card = try scene.card()
        card.failAccesses(true)
        for _ in 0..<5 {
            await scene.refuses(.operationFailed) { _ = try await scene.frontend.read(Cards.first, 0, 4) }
            await scene.refuses(.operationFailed) { try await scene.frontend.write(6, to: Cards.first, 4, 2) }
            await scene.refuses(.operationFailed) { _ = try await scene.frontend.enableMSI(Cards.first) }
        }
        #expect(scene.log.count("configuration space cannot be read") == 1)
        #expect(scene.interrupts.isEmpty)
        card.failAccesses(false)
        _ = try await scene.frontend.enableMSI(Cards.first)
        #expect(try await scene.backendKey("state") == "4")
        try await scene.end()
    }

    /// Virtual functions share their device's number with others that they have nothing to do with.
    @Test func aVirtualFunctionWhoseParentGoes() async throws {
        let parent = Cards.host(PCIAddress(bus: 8, device: 0, function: 0)!)
        let scene = try await PCIScene([Cards.network, Cards.second]) {
            SimulatedPCICard($0, virtualFunctionOf: parent)
        }
        #expect(try await scene.backendKey("vdev-0") == "0000:00:00.00")
        #expect(try await scene.backendKey("vdev-1") == "0000:00:01.00")
        _ = try await scene.frontend.enableMSI(Cards.first)
        for address in [Cards.network, Cards.second] { scene.cards.unplug(Cards.host(address)) }
        await scene.refuses(.deviceNotFound) { _ = try await scene.frontend.read(Cards.first, 0, 4) }
        await scene.refuses(.deviceNotFound) { try await scene.frontend.write(6, to: Cards.first, 4, 2) }
        #expect(try await scene.backendKey("state") == "4")
        try await scene.remove()
        #expect(scene.interrupts.isEmpty)
    }

    @Test func aHostThatHangsIsWaitedFor() async throws {
        let scene = try await PCIScene()
        let card = try scene.card()
        card.hang()
        let reading = Task { try await scene.frontend.read(Cards.first, 0, 4) }
        #expect(try await eventually { try await scene.backend.report().phase == "waiting for 0000:08:05.0" })
        #expect(try await scene.backendKey("state") == "4")
        card.goOn()
        #expect(try await reading.value == 0x10D3_8086)
        #expect(try await scene.backend.report().phase == "connected")
        try await scene.end()
    }
}
