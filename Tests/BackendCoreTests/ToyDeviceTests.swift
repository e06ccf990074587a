// The components, put together to a device class: it serves, survives its deaths, and waits for a host that is late.

internal import BackendCore
internal import Foundation
internal import Hypervisor
internal import SharedRing
internal import SimulatedHypervisor
internal import Synchronization
internal import SystemPackage
internal import TestSupport
internal import Testing
internal import XenWire

@Suite struct ToyDeviceTests {
    private func fill(_ scene: ToyScene) throws {
        let bytes = try PrivatePages(byteCount: 4096)
        bytes.write([UInt8](repeating: 2, count: 4096), at: 0)
        scene.data.pages.copyIn(at: 0, count: 4096, from: bytes, at: 0)
    }

    /// What a class of its own costs with the components: the limit is for them, not for the toy.
    @Test func aDeviceClassIsSmall() throws {
        let source = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "Support/ToyDevice.swift")
        let lines = try String(contentsOf: source, encoding: .utf8).split(
            separator: "\n",
            omittingEmptySubsequences: false
        )
        #expect(lines.count < 150)
    }

    @Test func itServesOverManyDeaths() async throws {
        let scene = try await ToyScene()
        try fill(scene)
        try #require(try await scene.connect(), "\(scene.logs.all)")
        for count: UInt32 in 1...20 {
            let id = scene.ask(count: count)
            #expect(try await scene.answer(to: id) == 2 * count)
            if count % 5 == 0 {
                await scene.die()
                let left = scene.ask(count: 100)
                try scene.succeed()
                #expect(try await scene.answer(to: left) == 200, "\(scene.logs.all)")
            }
        }
        #expect(try await scene.backendReaches(.connected))
        await scene.end()
    }

    @Test func aBadGrantFailsItsRequestAlone() async throws {
        let scene = try await ToyScene()
        try fill(scene)
        try #require(try await scene.connect())
        let (bad, good) = (scene.ask(count: 1, reference: GrantReference(4000)), scene.ask(count: 3))
        #expect(try await scene.answer(to: bad) == ToyWire.failed)
        #expect(try await scene.answer(to: good) == 6)
        await scene.end()
    }

    @Test func aFrontendThatBreaksItsRingIsClosed() async throws {
        let scene = try await ToyScene()
        try #require(try await scene.connect())
        scene.ring.pages.storeRelease(4000, at: RingLayout.requestProducer)
        scene.events.notify(scene.port)
        #expect(try await scene.backendReaches(.closing))
        await scene.end()
    }

    // MARK: waiting

    /// What the host cannot do at a takeover for as long as a fault lasts.
    static let late: [(SimulatedCall, Errno)] = [
        (.bind, .invalidArgument), (.bind, .noMemory), (.map, .noMemory), (.map, .invalidArgument),
        (.identity, .resourceTemporarilyUnavailable),
    ]

    @Test(arguments: late)
    func aTakeoverWaitsForAHostThatIsLate(call: SimulatedCall, errno: Errno) async throws {
        let scene = try await ToyScene()
        try fill(scene)
        try #require(try await scene.connect())
        await scene.die()
        try scene.host.inject(FaultPlan([FaultPlan.Rule(call, by: .initial, count: .max, .fail(errno))]))
        try scene.succeed()
        #expect(await scene.phase("waiting for the rings"), "\(scene.logs.all)")
        let id = scene.ask(count: 50)
        try scene.host.clearFaults()
        #expect(try await scene.answer(to: id) == 100, "\(scene.logs.all)")
        #expect(try await scene.backendReaches(.connected))
        #expect(await scene.phase("connected"))
        await scene.end()
    }

    /// At a first connect a port or grant that is not there is the frontend's; all else is the host's.
    @Test(arguments: late.filter { $0.1 != .invalidArgument })
    func aFirstConnectWaitsForAHostThatIsLate(call: SimulatedCall, errno: Errno) async throws {
        let scene = try await ToyScene()
        try fill(scene)
        try #require(try await scene.backendReaches(.initWait))
        try scene.host.inject(FaultPlan([FaultPlan.Rule(call, by: .initial, count: .max, .fail(errno))]))
        try await scene.set(scene.keys)
        try await scene.set(["state": "3"])
        #expect(await scene.phase("waiting for the rings"), "\(scene.logs.all)")
        #expect(await eventually { scene.logs.all.contains { $0.hasPrefix("error:") } }, "\(scene.logs.all)")
        #expect(try await scene.host.store.read(ToyScene.path.key("state")) == XenbusState.initWait.text)
        try scene.host.clearFaults()
        #expect(try await scene.backendReaches(.connected), "\(scene.logs.all)")
        try await scene.set(["state": "4"])
        #expect(try await scene.answer(to: scene.ask(count: 50)) == 100)
        #expect(try await scene.host.store.read(ToyScene.path.errorNode) == nil)
        await scene.end()
    }

    @Test func aFirstConnectThatWaitsEndsWithItsFrontend() async throws {
        let scene = try await ToyScene()
        try #require(try await scene.backendReaches(.initWait))
        try scene.host.inject(FaultPlan([FaultPlan.Rule(.map, by: .initial, count: .max, .fail(.noMemory))]))
        try await scene.set(scene.keys)
        try await scene.set(["state": "3"])
        #expect(await scene.phase("waiting for the rings"))
        try await scene.set(["state": "6"])
        #expect(await eventually { await scene.backend.report().phase.contains("the frontend") })
        try scene.host.clearFaults()
        try await scene.set(["state": "1"])
        try #require(try await scene.connect(), "the frontend begins again: \(scene.logs.all)")
        await scene.end()
    }

    /// A bystander of a worker that dies while its device waits for XenStore: the device is not at fault.
    @Test func whoWaitsForXenStoreIsNotMarked() async throws {
        let scene = try await ToyScene()
        try #require(try await scene.backendReaches(.initWait))
        let backend = scene.backend
        let mark = try #require(await backend.mark)
        let seen = Mutex<[Bool]>([])
        try await backend.marked { () async throws(BackendFailure) in
            #expect(mark.isBusy)
            await backend.persist("ask") { (_) throws(HypervisorFailure) in
                let attempts = seen.withLock { seen in
                    seen.append(mark.isBusy)
                    return seen.count
                }
                if attempts < 3 { throw HypervisorFailure("read", .ioError) }
            }
            #expect(mark.isBusy)
        }
        #expect(!mark.isBusy)
        #expect(seen.withLock { $0 } == [false, false, false])
        await scene.end()
    }

    @Test func aTakeoverThatWaitsEndsWithItsFrontend() async throws {
        let scene = try await ToyScene()
        try #require(try await scene.connect())
        await scene.die()
        try scene.host.inject(FaultPlan([FaultPlan.Rule(.map, by: .initial, count: .max, .fail(.noMemory))]))
        try scene.succeed()
        #expect(await scene.phase("waiting for the rings"))
        try await scene.set(["state": "5"])
        #expect(try await scene.backendReaches(.closing))
        try await scene.set(["state": "6"])
        #expect(try await scene.backendReaches(.closed))
        #expect(try await scene.host.store.read(ToyScene.path.errorNode) == nil)
        await scene.end()
    }

    @Test func aTakeoverThatWaitsCanBeStopped() async throws {
        let scene = try await ToyScene()
        try #require(try await scene.connect())
        await scene.die()
        try scene.host.inject(FaultPlan([FaultPlan.Rule(.map, by: .initial, count: .max, .fail(.noMemory))]))
        try scene.succeed()
        #expect(await scene.phase("waiting for the rings"))
        await scene.end()
        #expect(try await scene.backendReaches(.connected), "a successor may try again")
    }

    /// Where nobody was before, a port that cannot be bound is the frontend's.
    @Test func aBadPortOfANewFrontendClosesIt() async throws {
        let scene = try await ToyScene()
        try #require(try await scene.backendReaches(.initWait))
        try await scene.set(scene.keys.merging(["event-channel": "4000"]) { $1 })
        try await scene.set(["state": "3"])
        #expect(try await scene.backendReaches(.closing))
        #expect(try await scene.host.store.read(ToyScene.path.errorNode)?.contains("event-channel") ?? false)
        #expect(scene.logs.all.contains { $0.hasPrefix("warning: frontend fault:") }, "\(scene.logs.all)")
        await scene.end()
    }

    /// However often XenStore fails and works again, a device says so once in a while.
    @Test func aStoreThatComesAndGoesIsSaidRarely() async throws {
        let scene = try await ToyScene()
        try #require(try await scene.connect())
        for _ in 0..<30 {
            try scene.host.inject(FaultPlan([FaultPlan.Rule(.storeRead, by: .initial, .fail(.ioError))]))
            _ = await scene.backend.readKeys(["online"])
            try scene.host.clearFaults()
        }
        // The first failure may have met the device's own look at the states.
        let told = scene.logs.all.filter { $0.contains("trying again") }
        #expect((1...3).contains(told.count), "\(told)")
        #expect(told.first?.contains("refused for 0 s") ?? false, "\(told)")
        await scene.end()
    }

    /// XSA-43: whatever a frontend does, the lines it makes are bounded.
    @Test func noFrontendFillsTheLog() async throws {
        let scene = try await ToyScene()
        try #require(try await scene.backendReaches(.initWait))
        var generator = SystemRandomNumberGenerator()
        for round in 0..<400 {
            var values = scene.keys
            switch round % 4 {
            case 0: values["event-channel"] = "\(UInt32.random(in: 100...4000, using: &generator))"
            case 1: values["ring-ref"] = "\(UInt32.random(in: 1000...4000, using: &generator))"
            case 2: values["ring-ref"] = "x\(round)"
            default: break
            }
            try await scene.set(values)
            for state in ["3", "4", "5", "6", "1"].shuffled(using: &generator) { try await scene.set(["state": state]) }
        }
        try await scene.set(["state": "6"])
        #expect(try await scene.backendReaches(.closed))
        #expect(scene.logs.all.count < 100, "\(scene.logs.all.count) lines, such as \(scene.logs.all.suffix(5))")
        await scene.end()
    }
}
