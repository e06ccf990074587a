// netchannel2 cards (`vif2`): what goes over them, and what frontends without manners can do.

internal import BackendCore
internal import FrontendDrivers
internal import HostNetwork
internal import Hypervisor
internal import NetChannel2
internal import SharedRing
internal import SimulatedHost
internal import TestSupport
internal import Testing
internal import XenWire

@testable internal import NetBackend

extension SimulatedNetworkTests {
    @Suite struct NetChannel2Tests {
        @Test func whatIsPublished() async throws {
            let scene = try await LinkScene()
            for (key, value) in [("state", "4"), ("max-ring-order", "4"), ("multi-queue-max-queues", "4")] {
                let found = try await scene.backendKey(key)
                #expect(found == value, "\(key)")
            }
            #expect(try scene.wire.carriers.last == true)
            // What the backend takes comes in band.
            #expect(await eventually { await scene.frontend.peer?.maxPackets == 256 })
            let peer = await scene.frontend.peer
            #expect(peer?.maxFragments == 18 && peer?.offloads == [.checksum, .segmentationV4])
            try await scene.end()
        }

        /// Packets of all sizes, both ways, in rings of several sizes.
        @Test(arguments: [0, 2, 4] as [UInt32])
        func packetsOfAllSizes(order: UInt32) async throws {
            var options = NetChannel2FrontendOptions()
            options.ringOrder = order
            let scene = try await LinkScene(options)
            let wire = try scene.wire
            for size in [14, 60, 255, 256, 257, 1514, 4223, 4224, 4225, 9014, 65_535] {
                let bytes = Frames.plain(size, seed: size)
                try await scene.frontend.send(NetChannel2Frame(bytes: bytes))
                #expect(await wire.next()?.bytes == bytes, "\(size) bytes out")
                wire.send(WireFrame(bytes: bytes))
                #expect(await scene.received(1).map(\.bytes) == [bytes], "\(size) bytes in")
            }
            #expect(await eventually { await scene.frontend.outstanding == 0 })
            let statistics = await scene.frontend.statistics
            #expect(statistics.first?.receivedSmall == 4)
            try await scene.end()
        }

        /// More packets than there are pages, numbers and ring for, both ways at once: all arrive, in order.
        @Test func manyPackets() async throws {
            var options = NetChannel2FrontendOptions()
            (options.ringOrder, options.pageCount) = (0, 18)
            let scene = try await LinkScene(options)
            let wire = try scene.wire
            let sizes = (0..<300).map { 60 + $0 * 37 % 3000 }
            for (number, size) in sizes.enumerated() { wire.send(WireFrame(bytes: Frames.plain(size, seed: number))) }
            let frontend = scene.frontend
            let sender = Task {
                for (number, size) in sizes.enumerated() {
                    try await frontend.send(NetChannel2Frame(bytes: Frames.plain(size, seed: number)))
                }
            }
            for (number, size) in sizes.enumerated() {
                guard await wire.next()?.bytes == Frames.plain(size, seed: number) else {
                    Issue.record("packet \(number) out")
                    break
                }
            }
            try await sender.value
            let received = await scene.received(300)
            #expect(received.map(\.bytes) == sizes.enumerated().map { Frames.plain($1, seed: $0) })
            try await scene.end()
        }

        @Test func severalQueues() async throws {
            var options = NetChannel2FrontendOptions()
            options.queueCount = 6
            let scene = try await LinkScene(options)
            let wire = try scene.wire
            #expect(await scene.frontend.queueCount == 4, "no more than were offered")
            for queue in 0..<4 {
                let bytes = Frames.plain(1000, seed: queue)
                try await scene.frontend.send(NetChannel2Frame(bytes: bytes), queue: queue)
                #expect(await wire.next(queue: queue)?.bytes == bytes)
                wire.send(WireFrame(bytes: bytes), queue: queue)
                #expect(await scene.received(1).map(\.bytes) == [bytes])
            }
            let report = try await scene.backend.report()
            guard case .card(let card)? = report.body else {
                Issue.record("no card")
                return
            }
            #expect(card.queueCount == 4 && card.mac == guestAddress.description && card.interface == "vif2-7.0")
            #expect(card.transmitted.packets == 4 && card.received.packets == 4)
            try await scene.end()
        }

        // MARK: offloads

        @Test func offloadsOfTheFrontend() async throws {
            let scene = try await LinkScene()
            let wire = try scene.wire
            let blank = Frames.tcp(3000)
            let frame = NetChannel2Frame(bytes: blank, flags: .checksumBlank, segmentSize: 1448)
            try await scene.frontend.send(frame)
            let heard = try #require(await wire.next())
            #expect(heard.bytes == blank && heard.header.segmentKind == .tcpv4 && heard.header.segmentSize == 1448)
            #expect(heard.header.flags == .needsChecksum && heard.header.checksumStart == 34)
            #expect(heard.header.checksumOffset == 16)
            // A blank checksum in what is neither TCP nor UDP.
            try await scene.frontend.send(NetChannel2Frame(bytes: Frames.plain(500), flags: .checksumBlank))
            try await scene.frontend.send(NetChannel2Frame(bytes: Frames.udp(200), flags: .dataValidated))
            #expect(await wire.next()?.header.flags == .dataValid)
            #expect(try await scene.counter("tx-frontend-faults") == 1)
            try await scene.end()
        }

        @Test func offloadsForTheFrontend() async throws {
            let scene = try await LinkScene()
            let wire = try scene.wire
            #expect(await eventually { wire.offloads.last == [.checksum, .segmentationV4] })
            let blank = Frames.tcp(5000)
            wire.send(WireFrame(header: Frames.header(blank, segmentSize: 1448), bytes: blank))
            let received = try #require(await scene.received(1).first)
            #expect(received.bytes == blank && received.segmentSize == 1448)
            #expect(received.flags == [.checksumBlank, .dataValidated])
            #expect(received.checksumStart == 34 && received.checksumOffset == 50, "both from the packet's beginning")

            // Taken back: the host is told, and what it sends nevertheless is done here, or dropped.
            #expect(try await scene.frontend.change([]))
            #expect(await eventually { wire.offloads.last == [] })
            let udp = Frames.udp(200, blank: true)
            wire.send(WireFrame(header: Frames.header(blank, segmentSize: 1448), bytes: blank))
            wire.send(WireFrame(header: Frames.header(udp), bytes: udp))
            let plain = try #require(await scene.received(1).first)
            #expect(plain.flags == [] && Frames.hasRightChecksum(plain.bytes) && plain.bytes.count == 200)
            #expect(try await scene.counter("rx-dropped-unfit") == 1)
            try await scene.end()
        }

        // MARK: what the toolstack says

        @Test func otherSourcesAreFiltered() async throws {
            let scene = try await LinkScene(keys: [(NetChannel2Keys.filterMAC, "1")])
            let wire = try scene.wire
            var foreign = Frames.plain(60)
            foreign[11] ^= 1
            try await scene.frontend.send(NetChannel2Frame(bytes: foreign))
            try await scene.frontend.send(NetChannel2Frame(bytes: Frames.plain(60, seed: 1)))
            #expect(await wire.next()?.bytes == Frames.plain(60, seed: 1))
            #expect(try await scene.counter("tx-frontend-faults") == 1)
            try await scene.end()
        }

        @Test func filteringWithoutAnAddress() async throws {
            let scene = try await LinkScene(
                keys: [(NetChannel2Keys.filterMAC, "1"), (NetChannel2Keys.remoteMAC, "00:16:3e")],
                connects: false
            )
            try await RawLink(scene).publish()
            try await scene.isClosed(saying: "filter-mac=1 needs remote-mac")
            try await scene.end()
        }

        /// Waiting for credit costs nothing, and nothing is lost.
        @Test func theRateIsKept() async throws {
            // So much at first, and nothing more for a quarter of an hour.
            let scene = try await LinkScene(rate: "70000,1000000000")
            let wire = try scene.wire
            // A packet is paid for before the next one is taken: the third has to wait for the second one's bytes.
            for seed in 0..<3 {
                try await scene.frontend.send(NetChannel2Frame(bytes: Frames.plain(65_000, seed: seed)))
            }
            for seed in 0..<2 { #expect(await wire.next()?.bytes == Frames.plain(65_000, seed: seed)) }
            #expect(try await eventually { try await scene.counter("tx-throttled") > 0 })
            #expect(wire.receive() == nil)
            // The other direction goes on meanwhile.
            wire.send(WireFrame(bytes: Frames.plain(1000)))
            #expect(await scene.received(1).map(\.bytes) == [Frames.plain(1000)])
            let turns = try await scene.counter("tx-turns")
            #expect(turns < 200, "it does not spin while it waits")
            try await scene.writeBackendKey(NetKeys.rate, "")
            #expect(await wire.next()?.bytes == Frames.plain(65_000, seed: 2))
            try await scene.end()
        }

        // MARK: life

        @Test func theDriverIsReloaded() async throws {
            let scene = try await LinkScene()
            let wire = try scene.wire
            for round in 0..<3 {
                let bytes = Frames.plain(1000, seed: round)
                try await scene.frontend.send(NetChannel2Frame(bytes: bytes))
                #expect(await wire.next()?.bytes == bytes)
                try await scene.frontend.close()
                #expect(await eventually { wire.carriers.last == false })
                #expect(scene.wires["vif2-7.0"] === wire, "the interface stays for the next driver")
                try await scene.frontend.reconnect()
            }
            try await scene.end()
        }

        @Test func liveDetachTakesTheInterfaceAway() async throws {
            let scene = try await LinkScene()
            try await scene.toolstack.detach(scene.card)
            #expect(await eventually { scene.wires["vif2-7.0"] == nil })
            #expect(try await scene.backendKey("state") == nil)
            try await scene.bystanderIsServed()
        }

        /// A link is not taken over, but the interface is: the frontend connects anew and goes on.
        @Test func afterAKillTheFrontendConnectsAnew() async throws {
            let scene = try await LinkScene()
            let wire = try scene.wire
            try await scene.killAndRevive()
            #expect(await eventually { await !scene.frontend.isConnected })
            try await scene.frontend.reconnect()
            #expect(try scene.wire === wire)
            let bytes = Frames.plain(1000)
            try await scene.frontend.send(NetChannel2Frame(bytes: bytes))
            #expect(await wire.next()?.bytes == bytes)
            try await scene.end()
        }

        // MARK: frontends without manners

        @Test(
            arguments: [
                (NetChannel2Keys.producerOrder, "5"), (NetChannel2Keys.consumerOrder, "-1"),
                (NetChannel2Keys.control, nil), (NetChannel2Keys.producerPage(0), nil), (BusKeys.eventChannel, "0"),
                (NetChannel2Keys.consumerPage(0), "4294967296"), (BusKeys.multiQueueNumQueues, "5"),
            ] as [(String, String?)]
        )
        func keysThatMakeNoSense(key: String, value: String?) async throws {
            let scene = try await LinkScene(connects: false)
            try await RawLink(scene).publish([key: value])
            try await scene.isClosed(saying: key)
            try await scene.end()
        }

        @Test func pagesThatAreNamedTwice() async throws {
            let scene = try await LinkScene(connects: false)
            let raw = try RawLink(scene)
            try await raw.publish([NetChannel2Keys.consumerPage(0): "\(raw.out.references[0].rawValue)"])
            try await scene.isClosed(saying: "repeats grant")
            try await scene.end()
        }

        @Test func aControlPageThatIsNotFresh() async throws {
            let scene = try await LinkScene(connects: false)
            let raw = try RawLink(scene)
            raw.control.pages.storeRelease(8, at: NetChannel2Layout.consumer(.backend))
            try await raw.publish()
            try await scene.isClosed(saying: "indices other than 0")
            try await scene.end()
        }

        /// Each closes this device, says why, and the one beside it does not notice.
        @Test(
            arguments: [
                // A packet's number that nobody has, a second limit, a bypass, an unknown size, a message beyond the ring.
                ([0x0000_0009_0008_0003], nil, "FINISH_PACKET"),
                ([0x0000_0009_0008_0001, 0x0000_0009_0008_0001], nil, "SET_MAX_PACKETS"),
                ([0x0000_0009_0008_000D], nil, "bypass"),
                ([0x0000_0009_0004_0003], nil, "4 bytes"),
                ([0x0000_0009_0100_0002], nil, "256 bytes"),
                ([], 600, "prod is 4800"),
                ([0x0000_0001_0020_0002, 3, 0x0001_0000, 0x7000_0000_0000], nil, "fragment"),
            ] as [([UInt64], Int?, String)]
        )
        func brokenLinks(words: [UInt64], produced: Int?, text: String) async throws {
            let scene = try await LinkScene(connects: false)
            let raw = try RawLink(scene)
            try await raw.publish()
            try await raw.isConnected()
            raw.put(words, produced: produced)
            try await scene.isClosed(saying: text)
            try await scene.end()
        }

        /// A grant that is none costs its packet; the link goes on.
        @Test func grantsThatAreNone() async throws {
            let scene = try await LinkScene(connects: false)
            let raw = try RawLink(scene)
            try await raw.publish()
            try await raw.isConnected()
            // 100 bytes of grant 999999, then 60 bytes inline.
            raw.put([0x0000_0007_0020_0002, 3, 0x0064 << 32, 999_999])
            let wire = try scene.wire
            let small: [UInt64] = [0x0000_0008_0050_0002, 0x0000_003C_0000_0004, 0xFFFF_FFFF_0000_0000]
            raw.put(small + [UInt64](repeating: 0x0101_0101_0101_0101, count: 7), at: 4)
            #expect(await wire.next()?.bytes.count == 60)
            #expect(try await scene.counter("tx-frontend-faults") == 1)
            // The first is finished all the same: behind the three messages of the opening is its number.
            #expect(await eventually { raw.back.pages.loadAcquire(at: 28) == 7 })
            #expect(raw.back.pages.loadAcquire(at: 24) == 0x0008_0003)
            try await scene.end()
        }

        /// A frontend that takes nothing: packets for it are dropped after a while, and the host sees no link.
        @Test func aFrontendThatTakesNothing() async throws {
            var stall = StallTimes()
            (stall.drain, stall.stall) = (.milliseconds(20), .milliseconds(40))
            stall.pause = .milliseconds(20)
            let scene = try await LinkScene(stall: stall, connects: false)
            let raw = try RawLink(scene)
            try await raw.publish()
            try await raw.isConnected()
            let wire = try scene.wire
            // It lets one packet come, and does not finish it.
            raw.put([0x0000_0001_0008_0001])
            for _ in 0..<3 { wire.send(WireFrame(bytes: Frames.plain(1000))) }
            #expect(await eventually { wire.carriers.last == false })
            #expect(try await eventually { try await scene.counter("rx-dropped-stalled") >= 2 })
            #expect(try await scene.counter("rx-packets") == 1)
            try await scene.end()
        }
    }
}
