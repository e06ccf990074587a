// The demo's second chapter: two guests exchange packets, one's worker is killed, and no packet of the flow is missing.

import FrontendDrivers
import HostIO
import SimulatedHost
import XenWire

#if canImport(Glibc)
    import Glibc
#endif

/// Packets there and back, then as many as go through with a worker killed in the middle.
struct DemoNetwork {
    /// A ping has the smallest frame; the stream has full Ethernet frames, half a ring of them under way.
    private static let ping = DemoFlow.Shape(byteCount: NetworkStream.minByteCount, window: 1)
    private static let stream = DemoFlow.Shape(byteCount: 1514, window: 128)

    private let story: DemoStory
    private let stage: DemoStage

    init(_ story: DemoStory, _ stage: DemoStage) {
        self.story = story
        self.stage = stage
    }

    /// - Parameter time: of the stream; the pings take a third of it before.
    func chapter(of time: Duration) async throws -> DemoOutcome.Chapter {
        try await DemoNetworkStage(on: stage).play { network in try await play(network, time) }
    }

    private func play(_ network: DemoNetworkStage, _ time: Duration) async throws -> DemoOutcome.Chapter {
        try await network.attach()
        for guest in network.guests {
            let worker = try await stage.worker(of: guest.domain)
            story.event("worker \(worker) serves guest \(guest.domain)'s network card \(guest.address)")
        }
        var chapter = DemoOutcome.Chapter()
        try await ping(network, until: .now + time / 3, &chapter)
        try await stream(network, time, &chapter)
        for guest in network.guests { chapter.checks.append(await check(guest)) }
        try await network.detach()
        story.event("both cards are detached and closed")
        return chapter
    }

    private func ping(
        _ network: DemoNetworkStage,
        until end: ContinuousClock.Instant,
        _ chapter: inout DemoOutcome.Chapter
    ) async throws {
        story.event("a packet of \(Self.ping.byteCount) bytes there and back, over and over")
        let meter = DemoMeter("packet there and back")
        let flow = DemoFlow(from: network.guests[0], to: network.guests[1], Self.ping, flow: 0, meter)
        record(try await flow.run(until: end), meter, &chapter)
    }

    private func stream(
        _ network: DemoNetworkStage,
        _ time: Duration,
        _ chapter: inout DemoOutcome.Chapter
    ) async throws {
        let guest = network.guests[0].domain
        story.event("packets of \(Self.stream.byteCount) bytes, \(Self.stream.window) under way, each verified")
        let meter = DemoMeter("packets, killed")
        let flow = DemoFlow(from: network.guests[0], to: network.guests[1], Self.stream, flow: 1, meter)
        let begun = ContinuousClock.now
        async let account = flow.run(until: begun + time)
        try await Task.sleep(for: time / 3)
        let killed = try await stage.killWorker(of: guest, story, "packets under way")
        record(try await account, meter, &chapter)
        let pause = meter.pause(from: killed, to: .now)
        chapter.kills.append(.init(process: "network worker", pauseMicroseconds: pause.microseconds))
    }

    private func record(_ account: DemoFlow.Account, _ meter: DemoMeter, _ chapter: inout DemoOutcome.Chapter) {
        var figures = meter.figures()
        figures.wrongBlocks = account.wrong
        chapter.phases.append(figures)
        let text =
            "\(meter.name): \(account.delivered) delivered once and in order, \(account.again) sent again, "
            + "\(account.wrong) wrong"
        chapter.checks.append(
            .init(text: text, isRight: account.wrong == 0 && account.delivered == UInt64(figures.requests))
        )
        story.event(text)
    }

    /// The guest's driver saw a single connection, and no protocol violation in its rings.
    private func check(_ guest: DemoNetworkStage.Guest) async -> DemoOutcome.Check {
        let sum = await guest.frontend.statistics.reduce(NetworkFrontendStatistics(), +)
        let isConnected = await guest.frontend.connection != nil
        let fault = await guest.frontend.lastFault
        let wrong = sum.badPackets + sum.misplacedResponses + sum.wrongChecksums
        return .init(
            text: "guest \(guest.domain)'s card: connected once, \(sum.sentPackets) packets out, "
                + "\(sum.receivedPackets) in, \(wrong) malformed",
            isRight: isConnected && fault == nil && wrong == 0
        )
    }
}
