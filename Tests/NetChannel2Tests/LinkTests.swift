// Packets of all sizes over a link, both ways, and what either end keeps meanwhile.

import NetChannel2
import SharedRing
import Testing
import XenWire

@Suite struct Links {
    /// Bytes that repeat only after 64 KiB and more.
    private static let pattern = (0..<140_000).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) }
    private func packet(_ count: Int, seed: Int = 0) -> [UInt8] { Array(Links.pattern[seed..<seed + count]) }

    /// Every size from an Ethernet header's to the largest packet, both ways, over the wrap at 2³².
    @Test(arguments: [0, 0xFFFF_F000] as [UInt32])
    func packetsOfEverySize(_ start: UInt32) throws {
        let pair = try LinkPair(startingAt: start)
        let sizes =
            Array(stride(from: 14, to: 520, by: 11)) + [
                255, 256, 257, 258, 1514, 4095, 4096, 4097, 4223, 4224, 4225, 9000, 32_768, 65_535, 65_536,
            ]
        for size in sizes {
            pair.front.queue.append(packet(size, seed: size))
            pair.back.queue.append(packet(size, seed: size + 1))
        }
        try pair.settle()
        #expect(pair.back.heard == sizes.map { packet($0, seed: $0) })
        #expect(pair.front.heard == sizes.map { packet($0, seed: $0 + 1) })
        for end in [pair.front, pair.back] {
            #expect(end.outstanding == 0 && end.owed == 0)
            #expect(end.freePages == 256, "every page is back")
        }
    }

    /// Small ones are inline: no page is lent, and nothing is to be finished.
    @Test func smallPacketsNeedNoGrant() throws {
        let pair = try LinkPair()
        #expect(try pair.front.send(packet(256)) == .sent)
        #expect(pair.front.freePages == 256 && pair.front.outstanding == 0)
        #expect(try pair.front.send(packet(257)) == .sent)
        #expect(pair.front.freePages == 255 && pair.front.outstanding == 1)
        try pair.settle()
        #expect(pair.back.heardPackets.map(\.type) == [.small, .receiverMap])
        #expect(pair.back.heardPackets.map(\.fragmentCount) == [0, 1])
    }

    @Test func whatIsSaidAboutAPacketArrives() throws {
        let pair = try LinkPair()
        let sent = try pair.back.send(packet(3000)) { outgoing in
            outgoing.flags = [.checksumBlank, .dataValidated]
            outgoing.segmentSize = 1448
            outgoing.checksumStart = 34
            outgoing.checksumOffset = 50
        }
        #expect(sent == .sent)
        _ = pair.back.flush()
        try pair.front.turn()
        let heard = try #require(pair.front.heardPackets.first)
        #expect(heard.flags == [.checksumBlank, .dataValidated] && heard.segmentSize == 1448)
        #expect(heard.checksumStart == 34 && heard.checksumOffset == 50 && heard.byteCount == 3000)
    }

    /// Not more than the other end said, nor more than there are pages.
    @Test func whatIsUnderWayIsLimited() throws {
        var few = LinkPair.limits
        few.maxPackets = 4
        let pair = try LinkPair(limits: (few, LinkPair.limits), pageCount: 20)
        for _ in 0..<4 { #expect(try pair.back.send(packet(1514)) == .sent) }
        #expect(try pair.back.send(packet(1514)) == .wait)
        #expect(try pair.back.send(packet(60)) == .sent, "a small one does not count")
        #expect(pair.back.oldest == 1)
        // The other way there may be 64, but there are pages for one of the largest only.
        #expect(try pair.front.send(packet(65_000)) == .sent)
        #expect(try pair.front.send(packet(65_000)) == .wait)
        for end in [pair.front, pair.back] { _ = end.flush() }
        try pair.front.turn()
        #expect(pair.front.heard.count == 5)
        #expect(try pair.back.send(packet(1514)) == .wait, "finished, but not published")
        _ = pair.front.flush()
        try pair.back.turn()
        #expect(try pair.back.send(packet(1514)) == .sent)
    }

    @Test func whetherAnythingCanBeSent() throws {
        var few = LinkPair.limits
        (few.maxPackets, few.maxFragments) = (1, 2)
        let pair = try LinkPair(order: 0, limits: (few, LinkPair.limits), pageCount: 20)
        #expect(try pair.back.canSend())
        #expect(try pair.back.send(packet(1514)) == .sent)
        #expect(try !pair.back.canSend(), "as many under way as may be")
        _ = pair.back.flush()
        try pair.front.turn()
        _ = pair.front.flush()
        try pair.back.turn()
        #expect(try pair.back.canSend())
        // No page for the largest that the other end takes.
        #expect(try pair.front.send(packet(128 + 3 * 4096)) == .sent)
        #expect(try !pair.front.canSend())
        // No room, and an event as soon as there is some.
        while try pair.back.send(packet(250)) == .sent {}
        #expect(try !pair.back.canSend())
        _ = pair.back.flush()
        #expect(try pair.back.sleep())
        try pair.front.turn()
        #expect(pair.front.flush())
        #expect(try pair.back.canSend())
    }

    @Test func packetsThatTheOtherEndDoesNotTake() throws {
        var few = LinkPair.limits
        few.maxFragments = 2
        let pair = try LinkPair(limits: (LinkPair.limits, few))
        #expect(try pair.front.send(packet(128 + 2 * 4096)) == .sent)
        #expect(try pair.front.send(packet(128 + 2 * 4096 + 1)) == .unfit)
        #expect(try pair.front.send(packet(65_537)) == .unfit)
    }

    /// Nothing goes out before the other end has said how much may.
    @Test func nothingIsSentBeforeTheOtherEndHasOpened() throws {
        let payload = makePages(4)
        let end = try LinkEnd(
            MessageRing(control: makePages(1), frontendPayload: payload, backendPayload: makePages(4), end: .backend),
            firstReference: 1,
            pageCount: 32,
            capacity: 8
        )
        try end.link.open(LinkPair.limits)
        #expect(try end.send(packet(60)) == .wait)
        #expect(try end.send(packet(1514)) == .wait)
        #expect(try end.send(packet(64_000)) == .wait)
        #expect(end.outstanding == 0 && end.freePages == 32)
    }

    /// A grant that cannot be read costs its packet and no other; it is finished all the same.
    @Test func aGrantThatCannotBeRead() throws {
        let pair = try LinkPair()
        pair.back.badGrants = [pair.front.references[2].rawValue]
        for seed in 0..<4 { #expect(try pair.front.send(packet(9000, seed: seed)) == .sent) }
        _ = pair.front.flush()
        try pair.back.turn()
        _ = pair.back.flush()
        try pair.front.turn()
        #expect(pair.back.heard == [1, 2, 3].map { packet(9000, seed: $0) } && pair.back.refusedCount == 1)
        #expect(pair.front.outstanding == 0 && pair.front.freePages == 256)
    }

    /// Offloads that were taken back while packets were under way: these are dropped, and finished.
    @Test func offloadsTakenBack() throws {
        let pair = try LinkPair()
        #expect(try pair.front.send(packet(1514, seed: 1)) { $0.flags = .checksumBlank } == .sent)
        #expect(try pair.front.send(packet(1514, seed: 2)) == .sent)
        _ = pair.front.flush()
        #expect(try pair.back.link.change([]))
        try pair.back.turn()
        #expect(pair.back.heard == [packet(1514, seed: 2)] && pair.back.refusedCount == 1)
        _ = pair.back.flush()
        try pair.front.turn()
        #expect(pair.front.peer.offloads == [] && pair.front.outstanding == 0)
    }

    /// A turn takes no more than its memory holds, and says that there is more.
    @Test func aTurnIsBounded() throws {
        let pair = try LinkPair(order: 4)
        for _ in 0..<200 { #expect(try pair.front.send(packet(60)) == .sent) }
        _ = pair.front.flush()
        #expect(try pair.back.turn() == .full)
        #expect(pair.back.heard.count == NetChannel2Intake.maxPackets)
        while try pair.back.turn() == .full {}
        #expect(pair.back.heard.count == 200)
        // Packets of 64 KiB: five of them fill it.
        for _ in 0..<12 { #expect(try pair.front.send(packet(65_536)) == .sent) }
        _ = pair.front.flush()
        pair.back.heard = []
        #expect(try pair.back.turn() == .full)
        #expect(pair.back.heard.count == 4)
        while try pair.back.turn() == .full {}
        #expect(pair.back.heard == Array(repeating: packet(65_536), count: 12))
    }

    /// An end that takes nothing while it sends: the other one waits for it with what it has, and neither loses anything.
    @Test func anEndThatDoesNotListen() throws {
        let pair = try LinkPair(order: 0)
        for _ in 0..<1000 where try pair.back.send(packet(60)) != .sent { break }
        _ = pair.back.flush()
        // FINISH_PACKETs still find room, which was kept for them.
        for seed in 0..<20 { pair.front.queue.append(packet(1000, seed: seed)) }
        try pair.front.sendQueued()
        _ = pair.front.flush()
        try pair.back.turn()
        #expect(pair.back.owed == 0 && !pair.back.heard.isEmpty)
        try pair.settle()
        #expect(pair.back.heard == (0..<20).map { packet(1000, seed: $0) })
    }

    /// Both send as fast as they can, with rings and pages for a few packets only.
    @Test(arguments: [0, 1, 2], [0, 0xFFFF_FF00] as [UInt32])
    func bothSendWithoutPause(_ order: Int, _ start: UInt32) throws {
        var random = LinkRandom(seed: UInt64(order) + 77)
        var limits = LinkPair.limits
        for maxPackets in [1, 2, 3, 30] as [UInt32] {
            limits.maxPackets = maxPackets
            let pair = try LinkPair(order: order, limits: (limits, limits), pageCount: 18, startingAt: start)
            let sent = (0..<2).map { _ in
                (0..<40).map { packet(Int.random(in: 14...3000, using: &random), seed: $0) }
            }
            (pair.front.queue, pair.back.queue) = (sent[0], sent[1])
            try pair.settle()
            #expect(pair.back.heard == sent[0] && pair.front.heard == sent[1])
        }
    }
}
