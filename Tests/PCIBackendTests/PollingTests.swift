// Between two operations the queue looks on for a moment: events are saved, and none is lost.

internal import FrontendDrivers
internal import TestSupport
internal import Testing
internal import XenWire

@testable internal import PCIBackend

@Suite struct PCIPollingTests {
    @Test func operationsInARowNeedNoEventEach() async throws {
        let scene = try await PCIScene()
        let found = try await eventually {
            for _ in 0..<200 { _ = try await scene.frontend.read(Cards.first, 0, 4) }
            return try await scene.counter("polled") > 50
        }
        #expect(found)
        // Those that were found this way began no turn of their own.
        let turns = try await scene.counter("turns") - scene.counter("idle-turns")
        let operations = try await scene.counter("reads") + scene.counter("misdirected")
        #expect(try await turns + scene.counter("polled") <= operations)
        try await scene.end()
    }

    /// Pauses about as long as the window is: the operation that comes when the looking has just ended is heard all the same. If it
    /// were not, its reading would never end.
    @Test(.timeLimit(.minutes(3))) func nothingIsLostAtTheEndOfTheWindow() async throws {
        let scene = try await PCIScene()
        for round in 0..<3000 {
            _ = try await scene.frontend.read(Cards.first, 0, 4)
            let end = ContinuousClock.now + .microseconds(round % 150)
            while ContinuousClock.now < end {}
        }
        #expect(try await scene.counter("reads") >= 3000)
        try await scene.end()
    }
}
