// Message rings whose other end lies, or writes while we look.

import SharedRing
import Synchronization
import Testing
import XenWire

private typealias Link = MessageLink<NetChannel2Layout>

@Suite struct HostileMessageRings {
    /// Producer indices that no honest end shows.
    @Test(arguments: [0, 0xFFFF_FF00] as [UInt32])
    func producersOutOfRange(_ start: UInt32) throws {
        for lie in [4104, 8192, 1 << 31, UInt32.max &- 7, 0 &- 4096] as [UInt32] {
            let link = try Link(startingAt: start)
            link.control.storeRelease(start &+ lie, at: NetChannel2Layout.producer(.frontend))
            #expect(
                throws: MessageRingFault.producerOutOfRange(
                    producer: start &+ lie,
                    consumed: start,
                    ringBytes: 4096
                )
            ) { _ = try link.poll() }
            #expect(link.waiting == 0)
        }
        for lie in [1, 4, 7, 9, 4095] as [UInt32] {
            let link = try Link(startingAt: start)
            link.control.storeRelease(start &+ lie, at: NetChannel2Layout.producer(.frontend))
            #expect(throws: MessageRingFault.producerUnaligned(start &+ lie)) { _ = try link.poll() }
            #expect(throws: MessageRingFault.self) { _ = try link.lastLook() }
        }
    }

    /// What was shown once cannot be taken back, seen or consumed.
    @Test func producersThatGoBack() throws {
        let link = try Link()
        for _ in 0..<8 { link.put(8, filledWith: 0) }
        _ = link.publish()
        #expect(try link.poll() == 64)
        _ = try link.take()
        for lie in [0, 8, 56] as [UInt32] {
            link.control.storeRelease(lie, at: NetChannel2Layout.producer(.frontend))
            #expect(throws: MessageRingFault.self) { _ = try link.poll() }
        }
        #expect(link.waiting == 56)
    }

    @Test(arguments: [0, 0xFFFF_FF00] as [UInt32])
    func consumersOutOfRange(_ start: UInt32) throws {
        let link = try Link(startingAt: start)
        for _ in 0..<16 { link.put(128, filledWith: 0) }
        _ = link.publish()
        let published = link.produced
        // Beyond what was published, though not beyond what was put.
        link.put(128, filledWith: 0)
        for lie in [link.produced, published &+ 8, published &+ 4096, published &+ 1 << 31, start &- 8] {
            link.control.storeRelease(lie, at: NetChannel2Layout.consumer(.frontend))
            let fault = MessageRingFault.consumerOutOfRange(consumer: lie, published: published, ringBytes: 4096)
            #expect(throws: fault) { _ = try link.reserve(4088) }
            #expect(throws: fault) { _ = try link.waitForRoom() }
        }
        link.control.storeRelease(start &+ 12, at: NetChannel2Layout.consumer(.frontend))
        #expect(throws: MessageRingFault.consumerUnaligned(start &+ 12)) { _ = try link.waitForRoom() }
        link.control.storeRelease(start &+ 256, at: NetChannel2Layout.consumer(.frontend))
        #expect(try link.waitForRoom())
        link.control.storeRelease(start &+ 128, at: NetChannel2Layout.consumer(.frontend))
        #expect(throws: MessageRingFault.self) { _ = try link.waitForRoom() }
    }

    /// Our own words are never read back.
    @Test func ourOwnWordsRewritten() throws {
        let link = try Link()
        for _ in 0..<4 { link.put(8, filledWith: 7) }
        _ = link.publish()
        _ = try link.take()
        _ = link.release()
        link.control.storeRelease(777, at: NetChannel2Layout.consumer(.frontend))
        link.control.storeRelease(3, at: NetChannel2Layout.producerEvent(.frontend))
        #expect(try link.take() != nil)
        _ = link.release()
        #expect(link.control.loadAcquire(at: NetChannel2Layout.consumer(.frontend)) == 16)
        link.control.storeRelease(12345, at: NetChannel2Layout.producer(.frontend))
        link.put(8, filledWith: 7)
        _ = link.publish()
        #expect(link.control.loadAcquire(at: NetChannel2Layout.producer(.frontend)) == 40)
    }

    /// Sizes that are no message's: every size there is, at three places of the ring.
    @Test(arguments: [0, 1024, 4096 - 64] as [UInt32])
    func sizes(_ start: UInt32) throws {
        let link = try Link(startingAt: start)
        link.control.storeRelease(start &+ 512, at: NetChannel2Layout.producer(.frontend))
        #expect(try link.poll() == 512)
        let offset = start & 4095
        let sizes =
            Array(0...600) + Array(stride(from: 601, through: UInt32(UInt16.max), by: 97)) + [4096, 65528, 65535]
        for size in sizes {
            let header = NetChannel2Header(word: 2 | size << 16)
            link.frontendPayload.storeRelease(header.word, at: Int(offset))
            let fault: MessageRingFault?
            do throws(MessageRingFault) {
                _ = try link.back.incoming.next()
                fault = nil
            } catch {
                fault = error
            }
            let expected: MessageRingFault? =
                if size < 8 || size % 8 != 0 {
                    .badSize(header)
                } else if size > 512 {
                    .beyondProduced(header, available: 512)
                } else if offset + size > 4096 {
                    .crossesEnd(header, offset: offset)
                } else {
                    nil
                }
            if fault != expected { Issue.record("size \(size): \(String(describing: fault))") }
        }
    }

    /// The double fetch: another thread rewrites header and body all the time. The size that was checked is the one that
    /// is taken, and the private copy agrees with itself.
    @Test func messagesRewrittenWhileWeLook() async throws {
        let link = try Link()
        let (payload, control) = (link.frontendPayload, link.control)
        let isDone = RingBell()
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                var turn: UInt32 = 0
                while !isDone.hasRung {
                    turn &+= 1
                    payload.storeRelease(turn & 1 == 0 ? 0x0010_0002 : 0x1000_0002, at: 0)
                }
            }
            group.addTask {
                defer { isDone.ring() }
                try HostileMessageRings.look(payload, control)
            }
            try await group.waitForAll()
        }
    }

    private static func look(_ payload: SharedPages, _ control: SharedPages) throws {
        let memory = try PrivatePages(byteCount: 4096)
        let other = makePages(1)
        var (small, large) = (0, 0)
        let deadline = ContinuousClock.now + .seconds(60)
        var rounds = 0
        while rounds < 50_000 || ((small <= 100 || large <= 100) && ContinuousClock.now < deadline) {
            rounds += 1
            control.storeRelease(4096, at: NetChannel2Layout.producer(.frontend))
            var ring = MessageRing<NetChannel2Layout>(
                control: control,
                frontendPayload: payload,
                backendPayload: other,
                end: .backend
            )
            _ = try ring.incoming.poll()
            let header = try ring.incoming.next()
            let message = ring.incoming.take(header, into: memory.slot(at: 0, byteCount: 4096))
            if header.size == 16 { small += 1 } else { large += 1 }
            if message.u32(0) != header.word || message.byteCount != Int(header.size)
                || ring.incoming.consumed != UInt32(header.size)
            {
                Issue.record("\(header.size) became \(message.byteCount)")
                return
            }
        }
        #expect(small > 100 && large > 100, "the other thread must really write meanwhile: \(small), \(large)")
    }

    /// Both ends on threads of their own, sleeping whenever the rules say they may: nobody sleeps for ever.
    @Test(.timeLimit(.minutes(1))) func noWakeUpIsLost() async throws {
        let link = try Link()
        let (control, payload, other) = (link.control, link.frontendPayload, link.backendPayload)
        let (toBack, toFront) = (RingBell(), RingBell())
        let count: UInt32 = 20_000
        await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                try await HostileMessageRings.produce(control, payload, other, count, bell: toFront, rings: toBack)
            }
            group.addTask {
                try await HostileMessageRings.consume(control, payload, other, count, bell: toBack, rings: toFront)
            }
            while let result = await group.nextResult() {
                #expect(throws: Never.self) { try result.get() }
            }
        }
    }

    private static func produce(
        _ control: SharedPages,
        _ payload: SharedPages,
        _ other: SharedPages,
        _ count: UInt32,
        bell: RingBell,
        rings peer: RingBell
    ) async throws {
        let memory = try PrivatePages(byteCount: 4096)
        var ring = MessageRing<NetChannel2Layout>(
            control: control,
            frontendPayload: payload,
            backendPayload: other,
            end: .frontend
        )
        var sent: UInt32 = 0
        while sent < count {
            let size = 8 &+ 8 &* (sent % 40)
            guard try ring.outgoing.hasRoom(for: size) else {
                if ring.outgoing.publish() { peer.ring() }
                if try !ring.outgoing.waitForRoom() { await bell.wait() }
                continue
            }
            let slot = memory.slot(at: 0, byteCount: Int(size))
            slot.set32(NetChannel2Header(.packet, size: Int(size)).word, at: 0)
            slot.set32(sent, at: 4)
            ring.outgoing.put(slot)
            sent += 1
            if sent % 3 == 0 || sent == count, ring.outgoing.publish() { peer.ring() }
        }
    }

    private static func consume(
        _ control: SharedPages,
        _ payload: SharedPages,
        _ other: SharedPages,
        _ count: UInt32,
        bell: RingBell,
        rings peer: RingBell
    ) async throws {
        let memory = try PrivatePages(byteCount: 4096)
        var ring = MessageRing<NetChannel2Layout>(
            control: control,
            frontendPayload: payload,
            backendPayload: other,
            end: .backend
        )
        var heard: UInt32 = 0
        while heard < count {
            while try ring.incoming.poll() > 0 {
                let header = try ring.incoming.next()
                if header.type == .pad {
                    ring.incoming.skip(header)
                } else {
                    let message = ring.incoming.take(header, into: memory.slot(at: 0, byteCount: 512))
                    if message.u32(4) != heard { Issue.record("\(message.u32(4)) instead of \(heard)") }
                    heard += 1
                }
                if ring.incoming.release() { peer.ring() }
            }
            if heard < count, try ring.incoming.lastLook() == 0 { await bell.wait() }
        }
    }
}

/// Rung by one thread, waited for by another.
private final class RingBell: Sendable {
    private let rings = Atomic<UInt32>(0)
    var hasRung: Bool { rings.load(ordering: .acquiring) != 0 }
    func ring() { rings.add(1, ordering: .releasing) }
    func wait() async {
        while rings.exchange(0, ordering: .acquiring) == 0 { await Task.yield() }
    }
}
