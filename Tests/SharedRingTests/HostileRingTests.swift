// Ring pages whose other end lies, or writes while we look.

import SharedRing
import Synchronization
import Testing
import XenWire

/// Rung by one thread, waited for by another.
private final class Bell: Sendable {
    private let rings = Atomic<UInt32>(0)
    var hasRung: Bool { rings.load(ordering: .acquiring) != 0 }
    func ring() { rings.add(1, ordering: .releasing) }
    /// Sleeps until it has rung since the last time.
    func wait() async {
        while rings.exchange(0, ordering: .acquiring) == 0 { await Task.yield() }
    }
}

@Suite struct HostileRings {
    /// Producer indices that no honest frontend shows: beyond the ring, backwards, far away.
    @Test(arguments: [0, 100, UInt32.max - 20])
    func producersOutOfRange(_ start: UInt32) throws {
        for lie in [33, 34, 1000, 1 << 31, UInt32.max, UInt32.max - 4, 0 &- 1, 0 &- 32] as [UInt32] {
            let pair = try RingPair(startingAt: start)
            pair.pages.storeRelease(start &+ lie, at: RingLayout.requestProducer)
            #expect(throws: RingFault.producerOutOfRange(producer: start &+ lie, consumed: start, size: 32)) {
                _ = try pair.pollBack()
            }
            #expect(pair.consumed == start)
            #expect(pair.waiting == 0)
        }
    }

    /// Going back to a request that was taken is as impossible as going too far.
    @Test func backwardsWithinTheRing() throws {
        let pair = try RingPair()
        for number in 0..<8 as Range<UInt32> { pair.ask(number) }
        _ = pair.push()
        for _ in 0..<8 { _ = try pair.take() }
        for lie in 0..<8 as Range<UInt32> {
            pair.pages.storeRelease(lie, at: RingLayout.requestProducer)
            #expect(throws: RingFault.self) { _ = try pair.pollBack() }
        }
        #expect(throws: RingFault.self) { _ = try pair.lookBack() }
    }

    /// Slots that are taken but not answered are not the frontend's to fill again.
    @Test func moreRequestsThanTheRingHasUnanswered() throws {
        let pair = try RingPair()
        for number in 0..<32 as Range<UInt32> { pair.ask(number) }
        _ = pair.push()
        for _ in 0..<32 { _ = try pair.take() }
        pair.pages.storeRelease(33, at: RingLayout.requestProducer)
        #expect(throws: RingFault.self) { _ = try pair.pollBack() }
        pair.answer(0)
        #expect(try pair.pollBack() == 1)
    }

    /// 2³² more is the same number: nothing waits, and nothing is taken twice.
    @Test func aProducerMovedByTwoToTheThirtyTwo() throws {
        let pair = try RingPair()
        pair.ask(1)
        _ = pair.push()
        #expect(try pair.take() == 1)
        pair.pages.storeRelease(UInt32(truncatingIfNeeded: (1 << 32) + 1 as UInt64), at: 0)
        #expect(try pair.pollBack() == 0)
    }

    /// The frontend rewrites what only the backend writes: our own copy decides.
    @Test func ourOwnWordsRewritten() throws {
        let pair = try RingPair()
        for number in 0..<4 as Range<UInt32> { pair.ask(number) }
        _ = pair.push()
        _ = try pair.take()
        pair.answer(0)
        pair.pages.storeRelease(77, at: RingLayout.responseProducer)
        pair.pages.storeRelease(99, at: RingLayout.requestEvent)
        _ = pair.publish()
        #expect(BackRing.publishedResponses(in: pair.pages) == 1)
        #expect(try pair.take() == 1)
    }

    @Test(arguments: [2, 32, 33, UInt32.max])
    func aBackendThatAnswersWhatWasNotAsked(_ lie: UInt32) throws {
        let pair = try RingPair()
        pair.ask(1)
        _ = pair.push()
        pair.pages.storeRelease(lie, at: RingLayout.responseProducer)
        #expect(throws: ResponseProducerFault.self) { _ = try pair.pollFront() }
        #expect(pair.heard == 0)
    }

    /// The double fetch (XSA-155): another thread rewrites the slot all the time. Whatever was copied out is what every
    /// later look sees, and what was valid stays valid.
    @Test func slotsRewrittenWhileWeLook() async throws {
        let pages = makePages(1)
        let isDone = Bell()
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { HostileRings.rewrite(pages, until: isDone) }
            group.addTask {
                defer { isDone.ring() }
                try HostileRings.look(at: pages)
            }
            try await group.waitForAll()
        }
    }

    /// A valid write of one sector, and what becomes of it in the twinkling of an eye: 255 segments beyond their pages.
    private static func rewrite(_ pages: SharedPages, until isDone: Bell) {
        var turn: UInt32 = 0
        while !isDone.hasRung {
            turn &+= 1
            let isEvil = turn & 1 == 0
            pages.storeRelease(isEvil ? 0xFF01 : 0x0101, at: 64)
            pages.storeRelease(isEvil ? 0xFFFF : 0, at: 64 + 16)
            for segment in 0..<11 { pages.storeRelease(isEvil ? 0x00FF_FFFF : 0x0700, at: 64 + 24 + segment * 8 + 4) }
        }
    }

    private static func look(at pages: SharedPages) throws {
        let memory = try PrivatePages(byteCount: 4096)
        let slot = memory.slot(at: 0, byteCount: 112)
        let limits = BlockLimits(capacity: 1000)
        var changes = 0
        var valid = 0
        var last: UInt32 = 0
        // On a busy machine the two threads may long take turns instead of running side by side.
        let deadline = ContinuousClock.now + .seconds(60)
        var rounds = 0
        while rounds < 200_000 || ((changes <= 100 || valid <= 100) && ContinuousClock.now < deadline) {
            rounds += 1
            var ring = BackRing(pages: pages, stride: 112)
            pages.storeRelease(1, at: RingLayout.requestProducer)
            _ = try ring.poll()
            ring.takeNext(into: slot, count: 112)
            let raw = RawBlockRequest(slot, abi: .x86_64)
            let before = (raw.segmentCount, raw.sector, raw.segment(0))
            if let request = try? BlockRequest(validating: raw, for: limits) {
                valid += 1
                #expect(request.segment(0, in: slot).lastSector <= 7)
            }
            #expect((raw.segmentCount, raw.sector, raw.segment(0)) == before)
            let now = pages.loadAcquire(at: 64)
            if now != last { changes += 1 }
            last = now
        }
        #expect(changes > 100, "the other thread must really write meanwhile: \(changes)")
        #expect(valid > 100, "and some requests must get through: \(valid)")
    }

    /// Both ends on threads of their own, sleeping whenever the protocol says they may: nobody sleeps for ever.
    @Test(.timeLimit(.minutes(1))) func noWakeUpIsLost() async throws {
        let pages = makePages(1)
        let count: UInt32 = 30_000
        let toBack = Bell()
        let toFront = Bell()
        await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await HostileRings.serve(pages, count, bell: toBack, rings: toFront) }
            group.addTask { try await HostileRings.ask(pages, count, bell: toFront, rings: toBack) }
            while let result = await group.nextResult() {
                #expect(throws: Never.self) { try result.get() }
            }
        }
    }

    private static func serve(
        _ pages: SharedPages,
        _ count: UInt32,
        bell: Bell,
        rings other: Bell
    ) async throws {
        let memory = try PrivatePages(byteCount: 4096)
        let slot = memory.slot(at: 0, byteCount: 112)
        await bell.wait()  // for the frontend to have made its ring
        var ring = BackRing(pages: pages, stride: 112)
        var served: UInt32 = 0
        while served < count {
            while try ring.poll() > 0 {
                ring.takeNext(into: slot, count: 112)
                #expect(slot.u32(0) == served)
                ring.put(WireWords(low: slot.u64(0), high: 0), count: 16)
                if ring.publish() { other.ring() }
                served += 1
            }
            if served < count, try ring.lastLook() == 0 { await bell.wait() }
        }
    }

    private static func ask(
        _ pages: SharedPages,
        _ count: UInt32,
        bell: Bell,
        rings other: Bell
    ) async throws {
        let memory = try PrivatePages(byteCount: 4096)
        let slot = memory.slot(at: 0, byteCount: 112)
        var ring = FrontRing(pages: pages, stride: 112)
        other.ring()
        var asked: UInt32 = 0
        var heard: UInt32 = 0
        while heard < count {
            while asked < count && ring.free > 0 {
                slot.set32(asked, at: 0)
                ring.put(request: slot, count: 112)
                if ring.push() { other.ring() }
                asked += 1
            }
            while try ring.poll() > 0 {
                ring.takeNext(into: slot, count: 16)
                #expect(slot.u32(0) == heard)
                heard += 1
            }
            if heard < count, ring.free == 0 || asked == count, try ring.lastLook() == 0 { await bell.wait() }
        }
    }
}
