// The `rate` key: a frontend that sends as fast as it can gets what it says, no less and no more.

internal import BackendCore
internal import FrontendDrivers
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

        /// Bytes in a second that come out of the interface.
        private func speed(_ wire: WireDevice, over seconds: Double) async -> Double {
            func drain() -> Int { (0..<wire.queueCount).reduce(0) { $0 + wire.drain(queue: $1) } }
            _ = drain()
            let start = ContinuousClock.now
            var total = 0
            while ContinuousClock.now - start < .seconds(seconds) {
                try? await Task.sleep(for: .milliseconds(2))
                total += drain()
            }
            let (whole, part) = (ContinuousClock.now - start).components
            return Double(total) / (Double(whole) + Double(part) * 1e-18)
        }

        @Test(arguments: [1, 2])
        func aFloodGetsItsRate(queues: Int) async throws {
            var options = NetworkFrontendOptions()
            options.queueCount = queues
            let scene = try await NetScene(options, rate: "35000,50000")
            let wire = try scene.wire
            let flood = flood(scene, queues: queues)
            // What was saved goes at once. The rates are such that a busy machine can send them.
            _ = await speed(wire, over: 0.5)
            let slow = await speed(wire, over: 2.5)
            #expect(slow > 630_000 && slow < 770_000, "\(slow) B/s")
            try await scene.bystanderIsServed()
            try await scene.writeBackendKey("rate", "17500,50000")
            _ = await speed(wire, over: 0.5)
            let halved = await speed(wire, over: 3)
            #expect(halved > 315_000 && halved < 385_000, "\(halved) B/s")
            try await scene.writeBackendKey("rate", "")
            _ = await speed(wire, over: 0.1)
            let free = await speed(wire, over: 0.5)
            #expect(free > halved * 1.5, "\(free) B/s")
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
