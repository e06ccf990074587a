// A backend that dies between two turns, and its successor: no slot is lost, and neither side hears of it.

internal import BackendCore
internal import FrontendDrivers
internal import SharedRing
internal import SimulatedHypervisor
internal import SystemPackage
internal import TestSupport
internal import Testing
internal import XenWire

@testable internal import NetBackend

extension SimulatedNetworkTests {
    @Suite struct TakeoverTests {
        @Test func nothingIsLostOverManyDeaths() async throws {
            var options = NetworkFrontendOptions()
            options.queueCount = 2
            options.transmitBuffers = 32
            let scene = try await NetScene(options)
            let wire = try scene.wire
            let streams = try await TwoWayStreams(scene, queues: 2)
            let deaths = 8
            for death in 0..<deaths {
                streams.give(60)
                if death % 2 == 0 { try await Task.sleep(for: .milliseconds(5)) }
                try await scene.kill()
                streams.takeAll()
                streams.give(20)
                try scene.revive()
                #expect(await streams.comeOut(40), "death \(death)")
                #expect(try await scene.backendKey("state") == "4")
            }
            let sent = try await streams.stop()
            for queue in 0..<2 {
                #expect(try await scene.frontend.sendAndWait(Frames.plain(60), queue: queue) == 0)
                streams.takeAll()
                let toHost = streams.received.toHost[queue]
                #expect(toHost.received == sent[queue] && toHost.wrong == 0 && toHost.late == 0, "queue \(queue)")
            }
            // A packet that waited for buffers is lost with its holder: one for each death.
            let haveArrived = await eventually(within: .seconds(10)) {
                zip(streams.received.toGuest, streams.given).allSatisfy { receiver, given in
                    receiver.received + UInt64(deaths) >= given && receiver.next == given
                }
            }
            #expect(haveArrived)
            #expect(streams.received.toGuest.allSatisfy { $0.wrong == 0 && $0.late == 0 })
            try await accountsBalance(scene, queues: 2, buffers: 32)
            #expect(wire.carriers.allSatisfy { $0 })
            try await scene.end()
        }

        /// Every id was answered once, every page came back in its place.
        private func accountsBalance(_ scene: NetScene, queues: Int, buffers: Int) async throws {
            for queue in 0..<queues {
                let room = try await scene.frontend.sendBurst(256, byteCount: 100, queue: queue) {
                    Frames.stream().write(UInt64($0), into: $1)
                }
                #expect(room >= buffers, "queue \(queue)")
            }
            let counted = await scene.frontend.statistics.reduce(NetworkFrontendStatistics(), +)
            #expect(counted.failedPackets == 0 && counted.badPackets == 0 && counted.misplacedResponses == 0)
            let fault = await scene.frontend.lastFault
            #expect(fault == nil)
        }

        @Test func settingsSurvive() async throws {
            var options = NetworkFrontendOptions()
            options.queueCount = 4
            options.controlRing = true
            options.multicastControl = true
            let scene = try await NetScene(options)
            let wire = try scene.wire
            let key = (0..<40).map { UInt8($0 * 5 + 1) }
            try await scene.frontend.setHash(types: .all, key: key, mapping: [3])
            let wanted = MACAddress(0x01, 0, 0x5E, 1, 2, 3)
            #expect(try await scene.frontend.multicast(.add(wanted)) == 0)
            func steered() async throws -> ReceivedPacket {
                wire.send(WireFrame(bytes: multicast(MACAddress(0x01, 0, 0x5E, 9, 9, 9))))
                wire.send(WireFrame(bytes: multicast(wanted)))
                let first = try #require(await scene.frontend.nextPacket())
                #expect(Array(first.bytes[0..<6]) == Frames.octets(wanted))
                wire.send(WireFrame(bytes: Frames.tcp(100, blank: false)))
                return try #require(await scene.frontend.nextPacket())
            }
            let before = try await steered()
            #expect(before.queue == 3 && before.hash?.kind == .ipv4TCP)
            try await scene.kill()
            try scene.revive()
            let after = try await steered()
            #expect(after == before)
            // And they can still be changed.
            let answer = try await scene.frontend.control(.setHashMappingSize, 0)
            #expect(answer.status == ControlStatus.success.rawValue)
            try await scene.end()
        }

        private func multicast(_ address: MACAddress) -> [UInt8] {
            var bytes = Frames.plain(100)
            bytes.replaceSubrange(0..<6, with: Frames.octets(address))
            return bytes
        }

        /// What a predecessor took and did not answer is answered, once: packets lost, pages given back.
        @Test func aDeathInsideATurnGivesEverySlotBack() async throws {
            let card = try await RawCard()
            let (out, back) = (card.queue.transmit, card.queue.receive)
            for slot in 0..<20 { card.post(page: 8 + slot % 8, id: UInt16(slot), at: UInt32(slot)) }
            back.requestProducer = 20
            back.notify()
            for id in 0..<4 { try await card.sends(id: UInt16(id)) }
            let bytes = Frames.plain(60)
            for _ in 0..<3 { try card.scene.wire.send(WireFrame(bytes: bytes)) }
            #expect(await back.waitForResponses(upTo: 3))
            try await card.scene.kill()
            // As if it had died before the last answers were shown.
            out.responseProducer = 2
            back.responseProducer = 1
            try card.scene.revive()
            #expect(await out.waitForResponses(upTo: 4))
            #expect(await back.waitForResponses(upTo: 3))
            #expect((2..<4).map { card.queue.answer(at: $0).id } == [2, 3])
            #expect((2..<4).allSatisfy { card.queue.answer(at: $0).status == TransmitStatus.dropped.rawValue })
            #expect((1..<3).map { card.queue.received(at: $0).id } == [1, 2])
            #expect((1..<3).allSatisfy { card.queue.received(at: $0).status == -1 })
            try await card.sends(id: 9)
            try card.scene.wire.send(WireFrame(bytes: bytes))
            #expect(await back.waitForResponses(upTo: 4))
            #expect(card.queue.received(at: 3).status == 60)
            try await card.end()
        }

        /// The first port fires while the second is still the predecessor's: nobody takes packets yet, and the port must
        /// not stay masked for that.
        @Test func anEventBeforeTheSecondPortIsBoundIsNotTheLast() async throws {
            let card = try await RawCard()
            let scene = card.scene
            try await card.sends(id: 1)
            let bound = try #require(scene.machine.usage(of: .initial)?.ports)
            try await scene.kill()
            #expect(await eventually { scene.machine.usage(of: .initial)?.ports == bound - 2 })
            try scene.host.inject(
                FaultPlan([.init(.bind, by: .initial, skip: 1, count: .max, .fail(.invalidArgument))])
            )
            try scene.revive()
            #expect(await eventually { scene.machine.usage(of: .initial)?.ports == bound - 1 })
            let sent = card.queue.transmit.send([card.slot(2, size: 60)])
            // The loop hears of it.
            let loop = try scene.backend.environment.dataLoop(device: scene.victim.index, queue: 0).loop
            for _ in 0..<5 { await loop.on {} }
            try scene.host.clearFaults()
            #expect(await card.queue.transmit.waitForResponses(upTo: sent &+ 1, within: .seconds(20)))
            #expect(await (try scene.wire).next()?.bytes == Array(Frames.plain(100).prefix(60)))
            for id in 3..<6 { try await card.sends(id: UInt16(id)) }
            try await card.end()
        }

        @Test func aFrontendThatRewroteItsRingIsClosed() async throws {
            let card = try await RawCard()
            try await card.sends(id: 1)
            try await card.scene.kill()
            card.queue.transmit.responseProducer = 0x8000_0000
            try card.scene.revive()
            try await card.scene.isClosed(saying: "disagree")
            try await card.end(victimServes: false)
        }
    }
}
