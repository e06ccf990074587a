// Whoever floods, the others keep their share: turns are counted out, not earned by events.

internal import FrontendDrivers
internal import Hypervisor
internal import SharedRing
internal import TestSupport
internal import Testing
internal import XenWire

@testable internal import NetBackend

extension SimulatedNetworkTests {
    @Suite struct FairnessTests {
        /// A flood's packets for each of its neighbours'. Fair is one; the rest is for threads that are not run in time.
        private static let share: UInt32 = 24

        /// All on one loop: a queue of another card, and another queue of the same card.
        @Test func aFloodOfSmallPacketsLeavesTheOthersTheirShare() async throws {
            let card = try await RawCard(queues: 3)
            card.fill(0, Frames.plain(60))
            let bystander = card.scene.bystander
            let flood = card.flood()
            let memory = residentBytes()
            #expect(await eventually { flood.answered > 1000 })
            var before = flood.answered
            var sent: UInt32 = 0
            while sent < 4000 {
                try await bystander.waitForRoom(byteCount: 60)
                sent += UInt32(
                    try await bystander.sendBurst(256, byteCount: 60) { _, slot in
                        for place in 0..<60 { slot.set8(UInt8(place), at: place) }
                    }
                )
            }
            let besideCard = flood.answered &- before
            #expect(besideCard / sent < FairnessTests.share, "\(besideCard) packets beside \(sent)")
            before = flood.answered
            #expect(await card.send(4000, queue: 2))
            let besideQueue = flood.answered &- before
            #expect(besideQueue / 4000 < FairnessTests.share, "\(besideQueue) packets beside 4000")
            // What was sent before is behind it.
            #expect(try await bystander.sendAndWait(Frames.plain(60)) == 0)
            _ = card.scene.wires["vif7.2"]?.drain()
            try await card.scene.bystanderIsServed()
            #expect(residentBytes() - memory < 64 << 20)
            await flood.stop()
            try await card.scene.end()
        }

        /// XSA-332: a frontend that only sends events. They cost a turn each at first, then one in a millisecond.
        @Test func eventsWithoutEndCostFewTurns() async throws {
            let card = try await RawCard()
            let begun = ContinuousClock.now
            let floods = [Flood(card.queue.transmit, nil), Flood(card.queue.receive, nil)]
            try await card.scene.bystanderIsServed()
            try await Task.sleep(for: .milliseconds(500))
            let turns = try await card.scene.counter("tx-turns") + card.scene.counter("rx-turns")
            let elapsed = ContinuousClock.now - begun
            let milliseconds = UInt64(
                elapsed.components.seconds * 1000 + elapsed.components.attoseconds / 1_000_000_000_000_000
            )
            #expect(turns < 300 + 3 * milliseconds, "\(turns) turns in \(elapsed)")
            try await card.scene.bystanderIsServed()
            // Its own packets go on too.
            try await card.sends()
            for flood in floods { await flood.stop() }
            try await card.end()
        }

        /// Questions without end on the control ring, which is on the loop of the first queue.
        @Test func aFloodOfControlRequests() async throws {
            let card = try await RawCard(control: true)
            let control = try #require(card.control)
            let flood = Flood(control) { number in
                ControlRequest(id: UInt16(truncatingIfNeeded: number), type: .getHashMappingSize).words
            }
            #expect(await eventually { flood.answered > 500 })
            for _ in 0..<5 { try await card.scene.bystanderIsServed() }
            try await card.sends()
            await flood.stop()
            try await card.end()
        }

        /// One queue, flooded from both sides at once: neither direction starves the other.
        @Test func bothDirectionsOfAQueueGoOn() async throws {
            let card = try await RawCard()
            card.fill(0, Frames.plain(60))
            let wire = try card.scene.wire
            let flood = card.flood()
            let reference = card.pages.references[9]
            let posts = Flood(card.queue.receive) { number in
                ReceiveRequest(id: UInt16(truncatingIfNeeded: number), reference: reference).words
            }
            let frame = WireFrame(bytes: Frames.plain(60))
            let (sent, received) = (flood.answered, posts.answered)
            #expect(
                await eventually(within: .seconds(60)) {
                    for _ in 0..<256 where !wire.send(frame) { break }
                    return flood.answered &- sent > 4000 && posts.answered &- received > 4000
                }
            )
            try await card.scene.bystanderIsServed()
            await flood.stop()
            await posts.stop()
            try await card.scene.end()
        }

        /// Packets that the frontend's hash gives to a queue without pages: they are lost there, not kept.
        @Test func packetsForAQueueThatTakesNoneAreNotKept() async throws {
            let card = try await RawCard(queues: 2, control: true)
            let control = try #require(card.control)
            card.fill(3, [1, 0, 0, 0])
            let reference = card.pages.references[3].rawValue
            let requests: [(ControlType, UInt32, UInt32)] = [
                (.setHashAlgorithm, 1, 0), (.setHashMappingSize, 1, 0), (.setHashMapping, reference, 1),
                (.setHashFlags, 15, 0),
            ]
            control.send(requests.map { ControlRequest(id: 1, type: $0.0, $0.1, $0.2).words })
            #expect(await control.waitForResponses(upTo: 4))
            for index in 0..<256 as Range<UInt32> { card.post(page: 8, id: UInt16(index), at: index) }
            card.queue.receive.push(to: 256)
            let wire = try card.scene.wire
            let frame = WireFrame(bytes: Frames.tcp(60_000, blank: false))
            let memory = residentBytes()
            for _ in 0..<800 {
                #expect(await eventually { wire.send(frame) })
            }
            #expect(try await eventually { try await card.scene.counter("rx-steered") == 800 })
            #expect(residentBytes() - memory < 24 << 20)
            #expect(try await card.scene.counter("rx-packets") == 0)
            try await card.scene.end()
        }
    }
}
