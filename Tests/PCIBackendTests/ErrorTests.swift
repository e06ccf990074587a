// Errors that cards report: the guest's driver hears of its own cards' ones, one after the other.

internal import FrontendDrivers
internal import HostPCI
internal import SimulatedHost
internal import TestSupport
internal import Testing
internal import XenWire

@testable internal import PCIBackend

@Suite struct PCIErrorTests {
    @Test func theGuestHearsOfItsCardsErrorsInTheirOrder() async throws {
        let scene = try await PCIScene()
        scene.cards.report(PCIErrorEvent(Cards.host(Cards.disk), .began))
        scene.cards.report(PCIErrorEvent(Cards.host(Cards.network), .began))
        scene.cards.report(PCIErrorEvent(Cards.host(Cards.network), .succeeded))
        #expect(await eventually { await scene.frontend.errors.count == 2 })
        let errors = await scene.frontend.errors
        #expect(errors.map(\.command) == [.errorDetected, .errorResume])
        #expect(errors.allSatisfy { $0.address == Cards.first })
        #expect(try await scene.counter("error-reports") == 2)
        // What a driver says to it is worth a line, and no fault.
        #expect(await eventually { scene.log.count("its driver was told of") == 2 })
        #expect(scene.log.count("frontend fault") == 0)
        // Operations go on beside it.
        #expect(try await scene.frontend.read(Cards.first, 0, 4) == 0x10D3_8086)
        #expect(try await scene.backendKey("aerState") == nil)
        try await scene.end()
    }

    @Test(arguments: [false, true]) func aCardThatFailedEndsItsGuestOnlyIfConfigured(_ isConfigured: Bool) async throws
    {
        let scene = try await PCIScene(settings: PCISettings(failsGuestOnError: isConfigured))
        scene.cards.report(PCIErrorEvent(Cards.host(Cards.network), .failed))
        #expect(await eventually { await scene.frontend.errors.count == 1 })
        if isConfigured {
            #expect(try await eventually { try await scene.backendKey("aerState") == "aerfail" })
        } else {
            #expect(await eventually { scene.log.count("FAILED_RECOVERY") == 1 })
            #expect(try await scene.backendKey("aerState") == nil)
        }
        #expect(try await scene.backendKey("state") == "4")
        try await scene.end()
    }
}
