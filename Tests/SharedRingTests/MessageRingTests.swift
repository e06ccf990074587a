// Rings of messages between two honest ends: PADs, room, reservation, events, and the wrap at 2³².

import SharedRing
import Testing
import XenWire

/// Another library of the same name groups the words by who writes them.
private enum LayoutByOwner: NetChannel2ControlLayout {
    static func producer(_ ring: NetChannel2End) -> Int { ring == .frontend ? 0 : 64 }
    static func producerEvent(_ ring: NetChannel2End) -> Int { ring == .frontend ? 68 : 4 }
    static func consumer(_ ring: NetChannel2End) -> Int { ring == .frontend ? 72 : 8 }
    static func consumerEvent(_ ring: NetChannel2End) -> Int { ring == .frontend ? 12 : 76 }
}

private typealias Link = MessageLink<NetChannel2Layout>

/// SplitMix64, so that a failure can be repeated.
struct RingRandom: RandomNumberGenerator {
    private var state: UInt64
    init(seed: UInt64) { state = seed }
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var word = state
        word = (word ^ (word >> 30)) &* 0xBF58_476D_1CE4_E5B9
        word = (word ^ (word >> 27)) &* 0x94D0_49BB_1331_11EB
        return word ^ (word >> 31)
    }
}

@Suite struct MessageRings {
    /// Every message arrives whole and in order, whatever its size, in rings of all sizes, however many are published or
    /// released at a time.
    @Test(arguments: [0, 1, 2, 3, 4] as [UInt32], [0, UInt32.max - 4095 - 64 + 1 - 8, 0xFFFF_FFF8] as [UInt32])
    func messagesOfAllSizes(_ order: UInt32, _ start: UInt32) throws {
        try exchange(MessageLink<NetChannel2Layout>(orders: (order, 0), startingAt: start & ~7))
        try exchange(MessageLink<LayoutByOwner>(orders: (order, 4), startingAt: start & ~7))
    }

    private func exchange<Layout>(_ link: MessageLink<Layout>) throws {
        var random = RingRandom(seed: UInt64(link.frontendPayload.byteCount))
        var (sent, heard) = ([[UInt8]](), [[UInt8]]())
        for round in 0..<400 {
            let size = 8 * Int.random(in: 1...53, using: &random)
            if try link.hasRoom(UInt32(size)) {
                link.put(size, filledWith: UInt8(truncatingIfNeeded: round))
                sent.append(link.sent(size).bytes)
            }
            if Int.random(in: 0..<3, using: &random) == 0 { _ = link.publish() }
            guard Int.random(in: 0..<4, using: &random) == 0 else { continue }
            for _ in 0..<Int.random(in: 1...20, using: &random) {
                if let message = try link.take() { heard.append(message) }
            }
            _ = link.release()
        }
        _ = link.publish()
        while let message = try link.take() { heard.append(message) }
        #expect(sent.count > 100 && heard == sent)
    }

    /// The table of uring.h's rule, and what then is in the ring.
    @Test(
        arguments: [
            (0xFF0, 8, nil), (0xFF0, 16, 16), (0xFF8, 8, 8), (0, 2048, nil), (0xFFFF_FFF8, 8, 8), (0xE58, 424, 424),
        ] as [(UInt32, Int, Int?)]
    )
    func aPadFillsTheEnd(_ start: UInt32, _ size: Int, _ pad: Int?) throws {
        let link = try Link(startingAt: start)
        #expect(try link.hasRoom(UInt32(size)))
        link.put(size, filledWith: 0x11)
        _ = link.publish()
        #expect(try link.poll() == UInt32(size + (pad ?? 0)))
        if let pad {
            let header = try link.next()
            #expect(header == NetChannel2Header(.pad, size: pad))
            link.back.incoming.skip(header)
            #expect(link.consumed & 4095 == 0)
        }
        #expect(try link.take() == link.sent(size).bytes)
        #expect(link.consumed == link.produced)
    }

    /// A message that ends exactly at the end is no fault, though we never send one.
    @Test func aMessageUpToTheEnd() throws {
        let link = try Link(startingAt: 4096 - 16)
        let slot = link.sent(16)
        slot.set32(NetChannel2Header(.suggestBypass, size: 16).word, at: 0)
        link.frontendPayload.copyIn(at: 4096 - 16, count: 16, from: link.memory, at: 0)
        link.control.storeRelease(4096, at: NetChannel2Layout.producer(.frontend))
        #expect(try link.take() == slot.bytes)
    }

    @Test func aFullRing() throws {
        let link = try Link()
        // A short message after another until the PAD before the last would need more than there is.
        for _ in 0..<511 {
            #expect(try link.hasRoom(8))
            link.put(8, type: 3, filledWith: 0)
        }
        #expect(try !link.hasRoom(8), "it would end at the ring's end, and a PAD before it needs all that is left")
        _ = link.publish()
        #expect(try link.poll() == 511 * 8)
        _ = try link.take()
        #expect(try !link.hasRoom(8), "taken, but not released")
        _ = link.release()
        #expect(try link.hasRoom(8), "eight bytes were freed")
        link.put(8, type: 3, filledWith: 0)
        _ = link.publish()
        #expect(try link.poll() == 4096 - 8 + 8, "full to the last byte")
        #expect(try !link.hasRoom(8))
        while try link.take() != nil {}
        _ = link.release()
        #expect(try link.hasRoom(2048))
    }

    @Test func reservedRoomIsLeftToThoseItIsFor() throws {
        let link = try Link()
        #expect(try link.reserve(64))
        #expect(try !link.reserve(4096))
        #expect(try !link.reserve(UInt32.max))
        var count = 0
        while try link.hasRoom(80) {
            link.put(80, filledWith: 1)
            count += 1
        }
        #expect(count == (4096 - 64) / 80)
        #expect(try !link.hasRoom(80))
        #expect(try link.hasRoomForShort(4))
        for _ in 0..<4 {
            #expect(try link.hasRoom(8, .reserved))
            link.put(8, type: 3, filledWith: 2)
        }
        link.front.outgoing.unreserve(64)
        #expect(link.front.outgoing.reserved == 0)
    }

    @Test func aPacketInTwoPartsIsPaddedWithZeroes() throws {
        let link = try Link()
        // What was in the ring before must not go out again as padding.
        for _ in 0..<40 { link.put(96, filledWith: 0xEE) }
        _ = link.publish()
        while try link.take() != nil {}
        _ = link.release()
        for count in [0, 1, 4, 5, 60, 61, 256] {
            let head = link.memory.slot(at: 0, byteCount: 20)
            let size = NetChannel2Wire.packetMessage(fragments: 0, prefix: count)
            head.set32(NetChannel2Header(.packet, size: size).word, at: 0)
            for offset in 0..<count { link.memory.slot(at: 1000, byteCount: 512).set8(0xAB, at: offset) }
            #expect(try link.hasRoom(UInt32(size)))
            link.front.outgoing.put(head, body: link.memory, at: 1000, count: count)
            _ = link.publish()
            let expected = head.bytes + [UInt8](repeating: 0xAB, count: count)
            #expect(try link.take() == expected + [UInt8](repeating: 0, count: size - 20 - count))
        }
    }

    @Test func nothingIsSeenBeforeItIsPublished() throws {
        let link = try Link()
        link.put(8, filledWith: 0)
        #expect(try link.poll() == 0)
        _ = link.publish()
        #expect(try link.poll() == 8)
    }

    /// The first event is for whoever looked; a page of zeroes asks for none.
    @Test(arguments: [0, 0xFFFF_FFE8] as [UInt32])
    func eventsOfTheProducer(_ start: UInt32) throws {
        let link = try Link(startingAt: start)
        link.control.storeRelease(start, at: NetChannel2Layout.producerEvent(.frontend))
        link.put(8, filledWith: 0)
        #expect(!link.publish(), "nobody has asked")
        #expect(try link.lastLook() == 8)
        _ = try link.take()
        #expect(try link.lastLook() == 0)
        link.put(8, filledWith: 0)
        #expect(link.publish())
        link.put(8, filledWith: 0)
        #expect(!link.publish(), "once is enough")
        #expect(!link.publish(), "nothing new")
        #expect(try link.lastLook() > 0)
    }

    @Test(arguments: [0, 0xFFFF_FFF8 - 4096] as [UInt32])
    func eventsOfTheConsumer(_ start: UInt32) throws {
        let link = try Link(startingAt: start)
        while try link.hasRoom(16) { link.put(16, filledWith: 0) }
        _ = link.publish()
        #expect(try !link.waitForRoom())
        _ = try link.take()
        #expect(link.release(), "any room is enough for an event")
        _ = try link.take()
        #expect(!link.release(), "once")
        #expect(try link.waitForRoom(), "what was freed meanwhile is seen")
        #expect(!link.release(), "nothing new")
    }

    @Test func aFreshControlPage() {
        let control = makePages(1)
        #expect(MessageRing<NetChannel2Layout>.isFresh(control))
        for offset in [0, 4, 64, 68] {
            control.zero()
            control.storeRelease(8, at: offset)
            #expect(!MessageRing<NetChannel2Layout>.isFresh(control))
        }
        control.zero()
        control.storeRelease(1, at: 72)
        #expect(MessageRing<NetChannel2Layout>.isFresh(control), "a frontend may have asked for events already")
    }
}
