// A card whose packets a thread of the kernel carries: how it is chosen, what is shown, and a kernel that breaks or hangs.

internal import BackendCore
internal import FrontendDrivers
internal import HostNetwork
internal import SimulatedHost
internal import SystemPackage
internal import TestSupport
internal import Testing
internal import XenWire

@testable internal import NetBackend

/// A card on the double of vhost-net, whatever way the suite is run.
private func makeScene(
    queues: Int = 1,
    stall: StallTimes = .usual,
    connects: Bool = true
) async throws -> NetScene {
    var options = NetworkFrontendOptions()
    options.queueCount = queues
    return try await HostWay.$current.withValue(.vhost) {
        try await NetScene(options, stall: stall, connects: connects)
    }
}

extension NetScene {
    /// What `xenback show` says of the way to the host.
    fileprivate var way: String {
        get async throws {
            guard case .card(let card) = try await backend.report().body else { return "no card" }
            return card.host ?? "none"
        }
    }

    /// Packets go both ways on all queues.
    fileprivate func isServed(queues: Int = 1, seed: Int = 0) async throws {
        for queue in 0..<queues {
            let bytes = Frames.udp(9000, number: UInt64(seed))
            #expect(try await frontend.sendAndWait(bytes, queue: queue) == 0)
            #expect(await (try wire).next(queue: queue)?.bytes == bytes)
            #expect(try wire.send(WireFrame(bytes: bytes), queue: queue))
            #expect(await frontend.nextPacket()?.bytes == bytes)
        }
    }
}

@Suite(.serialized, .timeLimit(.minutes(2))) struct VhostCardTests {
    @Test func theKernelIsPreferred() async throws {
        let scene = try await makeScene(queues: 2)
        #expect(try await scene.way == "vhost-net")
        // The victim's two, the bystander's one.
        #expect(scene.vhost.openCount == 3)
        try await scene.isServed(queues: 2)
        try await scene.frontend.close()
        #expect(await eventually { scene.vhost.openCount == 1 }, "it is let go with the connection")
        try await scene.frontend.reconnect()
        try await scene.isServed(queues: 2, seed: 1)
        try await scene.end()
    }

    /// All queues of a card go one way: the first refusal decides, whichever queue and step it is about.
    @Test(arguments: SimulatedVhost.Call.allCases, [0, 3])
    func theKernelRefuses(call: SimulatedVhost.Call, after: Int) async throws {
        let scene = try await makeScene(queues: 2, connects: false)
        // The second queue's, where there is one step for each queue.
        scene.vhost.refuse(call, after: after, .noMemory)
        try await scene.frontend.connect()
        let way = try await scene.way
        if after == 0 {
            #expect(way.hasPrefix("system calls (") && way.contains("memory"), "\(way)")
            #expect(await eventually { scene.vhost.openCount == 1 }, "the bystander's")
        } else {
            #expect(way == "vhost-net" || way.hasPrefix("system calls ("), "\(way)")
        }
        try await scene.isServed(queues: 2)
        scene.vhost.refuse(nil)
        try await scene.frontend.close()
        try await scene.frontend.reconnect()
        #expect(try await scene.way == "vhost-net", "it is tried again for each connection")
        try await scene.isServed(queues: 2, seed: 1)
        try await scene.end()
    }

    /// A kernel whose ring cannot be believed is left; the card goes on.
    @Test(arguments: [SimulatedVhost.Lie.jump(300), .id(77), .length(5000), .buffers(9)])
    func theKernelLies(lie: SimulatedVhost.Lie) async throws {
        let scene = try await makeScene()
        try await scene.isServed()
        let wire = try scene.wire
        scene.vhost.lie(lie, .receive)
        wire.send(WireFrame(bytes: Frames.plain(100)))
        #expect(await eventually { (try? await scene.way) == "system calls" })
        try await scene.isServed(seed: 1)
        let failure = try await scene.backend.report().lastFailure ?? ""
        #expect(failure.contains("goes on by system calls") && failure.contains("broke the receive ring"), "\(failure)")
        #expect(try await scene.backendKey("state") == "4")
        try await scene.end()
    }

    @Test func theKernelLiesAboutWhatWasSent() async throws {
        let scene = try await makeScene()
        scene.vhost.lie(.jump(300), .transmit)
        #expect(try await scene.frontend.sendAndWait(Frames.plain(60)) == 0)
        #expect(await (try scene.wire).next()?.bytes == Frames.plain(60))
        // It is seen at the next packet, which goes the other way already.
        try await scene.isServed()
        #expect(try await scene.way == "system calls")
        try await scene.end()
    }

    /// A host that takes nothing: the guest's packets wait in its ring, the card says so, and all of them arrive later.
    @Test func theKernelHangs() async throws {
        var stall = StallTimes.usual
        stall.host = .milliseconds(200)
        let scene = try await makeScene(stall: stall)
        try await scene.isServed()
        scene.vhost.hang(true)
        let sent = 700
        let frontend = scene.frontend
        let sender = Task {
            for number in 0..<sent { try await frontend.send(Frames.udp(1400, number: UInt64(number))) }
        }
        #expect(await eventually { ((try? await scene.way) ?? "").contains("has taken no packet") })
        #expect(await eventually { (try? await scene.counter("tx-waits-for-host")) ?? 0 > 0 })
        #expect(try await scene.backend.report().lastFailure?.contains("the host has taken no packet") ?? false)
        #expect(try await scene.backendKey("state") == "4")
        scene.vhost.hang(false)
        var receiver = NetworkStream.Receiver(Frames.stream())
        let wire = try scene.wire
        #expect(
            await eventually {
                while let frame = wire.receive() { _ = Frames.edit(frame.bytes) { _ = receiver.take($0) } }
                return receiver.received == UInt64(sent)
            }
        )
        try await sender.value
        #expect(await eventually { (try? await scene.way) == "vhost-net" })
        try await scene.end()
    }

    /// The interface is deleted while nothing is sent: netlink tells.
    @Test func theInterfaceIsDeleted() async throws {
        let scene = try await makeScene()
        try scene.wire.keeper?.change(PlaceReport(.gone, "the interface vif7.0 was deleted; attach the device again"))
        try await scene.isClosed(saying: "vif7.0 was deleted")
        try await scene.end()
    }

    @Test func bellsThatRingForNothing() async throws {
        let scene = try await makeScene()
        for round in 0..<20 {
            scene.vhost.ringAllBells()
            try await scene.isServed(seed: round)
        }
        #expect(try await scene.way == "vhost-net")
        try await scene.end()
    }

    /// A frontend without pages has the kernel hold none of its packets but those of pages that it had.
    @Test func waitingPacketsStayInTheInterface() async throws {
        let card = try await HostWay.$current.withValue(.vhost) { try await RawCard() }
        let ring = card.queue.receive
        let wire = try card.scene.wire
        for page in 0..<4 as Range<UInt32> { card.post(page: 8 + Int(page), id: UInt16(page), at: page) }
        ring.push(to: 4)
        for _ in 0..<4 { wire.send(WireFrame(bytes: Frames.plain(100))) }
        #expect(await ring.waitForResponses(upTo: 4))
        for _ in 0..<10 { wire.send(WireFrame(bytes: Frames.plain(100))) }
        for page in 4..<6 as Range<UInt32> { card.post(page: 8 + Int(page), id: UInt16(page), at: page) }
        ring.push(to: 6)
        #expect(await ring.waitForResponses(upTo: 6))
        try await card.scene.bystanderIsServed()
        #expect(wire.waiting() == 8, "packets that the kernel has not taken out of the interface's queue")
        try await card.end()
    }
}
