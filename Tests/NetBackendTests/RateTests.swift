// The `rate` key: a frontend that sends as fast as it can gets what it says, and no more.

internal import BackendCore
internal import FrontendDrivers
internal import TestSupport
internal import Testing
internal import XenWire

extension SimulatedNetworkTests {
    @Suite struct RateTests {
        /// Sends on each queue until the card goes.
        private func flood(_ scene: NetScene, queues: Int) -> Task<Void, Never> {
            Task {
                await withTaskGroup(of: Void.self) { group in
                    for queue in 0..<queues {
                        group.addTask {
                            let large = Frames.tcp(20_000)
                            var frame = NetworkFrame(flags: [.checksumBlank, .dataValidated])
                            frame.segmentation = Segmentation(kind: .tcpv4, size: 1448)
                            while !Task.isCancelled {
                                do {
                                    try await scene.frontend.send(large, frame, queue: queue)
                                    for _ in 0..<8 { try await scene.frontend.send(Frames.udp(1500), queue: queue) }
                                } catch {
                                    return
                                }
                            }
                        }
                    }
                }
            }
        }

        /// Takes what comes out of the interface until it is as much as the rate gives in `seconds`.
        /// - Returns: the same in bytes for each second that it took; nil if it does not come.
        private func speed(_ wire: WireDevice, _ rate: Double, seconds: Double) async -> Double? {
            func drain() -> Int { (0..<wire.queueCount).reduce(0) { $0 + wire.drain(queue: $1) } }
            _ = drain()
            let start = ContinuousClock.now
            var total = 0
            let isEnough = await eventually(within: .seconds(60)) {
                total += drain()
                return Double(total) >= rate * seconds
            }
            let (whole, part) = (ContinuousClock.now - start).components
            return isEnough ? Double(total) / (Double(whole) + Double(part) * 1e-18) : nil
        }

        /// No more than the rate, however fast the frontend is; and all of it, unless the machine is too busy to send so
        /// much.
        @Test(arguments: [1, 2])
        func aFloodGetsItsRate(queues: Int) async throws {
            var options = NetworkFrontendOptions()
            options.queueCount = queues
            let scene = try await NetScene(options, rate: "35000,50000")
            let wire = try scene.wire
            let flood = flood(scene, queues: queues)
            // What was saved goes at once.
            _ = await speed(wire, 700_000, seconds: 0.5)
            let full = try #require(await speed(wire, 700_000, seconds: 3))
            #expect(full < 770_000, "\(full) B/s")
            try await scene.bystanderIsServed()
            try await scene.writeBackendKey("rate", "17500,50000")
            #expect(
                try await eventually { try await scene.backend.report().details.contains(.init("rate", "17500,50000")) }
            )
            _ = await speed(wire, 350_000, seconds: 0.5)
            let halved = try #require(await speed(wire, 350_000, seconds: 3))
            #expect(halved < 402_500, "\(halved) B/s")
            try await scene.writeBackendKey("rate", "")
            #expect(
                try await eventually {
                    try await !scene.backend.report().details.contains { $0.name == "rate" && !$0.value.isEmpty }
                }
            )
            // Without a limit no packet waits for its rate.
            let throttled = try await scene.counter("tx-throttled")
            let sent = try await scene.counter("tx-packets")
            #expect(try await eventually { try await scene.counter("tx-packets") > sent + 500 })
            #expect(try await scene.counter("tx-throttled") == throttled)
            flood.cancel()
            await scene.frontend.abandon()
            await flood.value
            try await scene.end()
        }

        @Test(arguments: ["fast", "0,50000", "100000,0", "100000", "-1,-1", "18446744073709551616,1"])
        func aRateThatIsNoneIsNoLimit(text: String) async throws {
            let scene = try await NetScene(rate: text)
            let status = try await scene.frontend.sendAndWait(Frames.udp(1500))
            #expect(status == 0)
            let report = try await scene.backend.report()
            #expect(report.lastFailure?.contains("rate") ?? false, "\(report)")
            try await scene.end()
        }
    }
}
