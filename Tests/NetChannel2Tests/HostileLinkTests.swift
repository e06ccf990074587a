// An end that breaks its rules: the other one says how, and keeps what it holds in bounds.

import NetChannel2
import SharedRing
import Testing
import XenWire

@Suite struct HostileLinks {
    /// Puts a message, as the frontend, where the backend looks next.
    private func forge(_ pair: LinkPair, _ words: [UInt64]) throws {
        let memory = try PrivatePages(byteCount: 4096)
        for (index, word) in words.enumerated() {
            memory.slot(at: 0, byteCount: 4096).set64(word, at: 8 * index)
        }
        let produced = pair.control.loadAcquire(at: NetChannel2Layout.producer(.frontend))
        pair.frontendPayload.copyIn(at: Int(produced) & 16383, count: 8 * words.count, from: memory, at: 0)
        pair.control.storeRelease(
            produced &+ UInt32(8 * words.count),
            at: NetChannel2Layout.producer(.frontend)
        )
    }

    private func fault(_ pair: LinkPair) -> NetChannel2LinkFault? {
        do {
            try pair.back.turn()
            return nil
        } catch {
            return error as? NetChannel2LinkFault
        }
    }

    private func message(_ type: UInt64, _ number: UInt64) -> [UInt64] { [type | 8 << 16 | number << 32] }

    @Test func finishesOfNobody() throws {
        for id in [0, 1, 1024, 0xFFFF_FFFF] as [UInt64] {
            let pair = try LinkPair()
            try forge(pair, message(3, id))
            #expect(fault(pair) == .violation(.unknownFinish(id: UInt32(id))))
        }
        // The same one twice.
        let pair = try LinkPair()
        #expect(try pair.back.send([UInt8](repeating: 1, count: 1514)) == .sent)
        _ = pair.back.flush()
        try pair.front.turn()
        _ = pair.front.flush()
        try pair.back.turn()
        #expect(pair.back.freePages == 256)
        try forge(pair, message(3, 0))
        #expect(fault(pair) == .violation(.unknownFinish(id: 0)))
        #expect(pair.back.freePages == 256)
    }

    @Test func limitsThatAreNone() throws {
        var pair = try LinkPair()
        try forge(pair, message(1, 5))
        #expect(fault(pair) == .violation(.limitRepeated))
        pair = try LinkPair()
        try forge(pair, message(5, 0))
        #expect(fault(pair) == .violation(.noFragments))
        pair = try LinkPair()
        try forge(pair, message(13, 0))
        #expect(fault(pair) == .violation(.bypassFromUntrusted))
        pair = try LinkPair()
        try forge(pair, message(16, 0))
        #expect(fault(pair) == .violation(.bypassUnasked))
    }

    @Test func sizes() throws {
        for size in [0, 4, 12, 1 << 15, 65535] as [UInt64] {
            let pair = try LinkPair()
            try forge(pair, [3 | size << 16])
            guard case .ring? = fault(pair) else {
                Issue.record("size \(size)")
                continue
            }
        }
        // A message larger than any that is looked into is skipped if nobody knows its type.
        let pair = try LinkPair()
        try forge(pair, [7 | 2048 << 16] + Array(repeating: UInt64.max, count: 255))
        #expect(fault(pair) == nil && pair.back.unknownCount == 1)
        for type in [1, 2, 3, 5, 9, 17] as [UInt8] {
            let pair = try LinkPair()
            try forge(pair, [UInt64(type) | 2048 << 16] + Array(repeating: UInt64.max, count: 255))
            let fault = NetChannel2MessageFault.wrongSize(type: NetChannel2MessageType(rawValue: type), size: 2048)
            #expect(self.fault(pair) == .violation(.message(fault)))
        }
    }

    /// More packets than we said, though each of them alone is right.
    @Test func morePacketsThanAnnounced() throws {
        var few = LinkPair.limits
        few.maxPackets = 2
        let pair = try LinkPair(limits: (LinkPair.limits, few))
        // One fragment of 1500 bytes at the beginning of a page that the frontend granted.
        let packet = { (id: UInt64) in
            [2 | 32 << 16 | id << 32, 3, 0x05DC << 32, UInt64(pair.front.references[0].rawValue)] as [UInt64]
        }
        for id in 0..<3 as Range<UInt64> { try forge(pair, packet(id)) }
        #expect(fault(pair) == .violation(.tooManyPackets(limit: 2)))
    }

    /// An end that never finishes keeps what it was lent, and gets no more; our memory is what it was.
    @Test func anEndThatNeverFinishes() throws {
        let pair = try LinkPair(pageCount: 32)
        var sent = 0
        while try pair.back.send([UInt8](repeating: 7, count: 4000)) == .sent { sent += 1 }
        #expect(sent == 32 && pair.back.freePages == 0)
        for _ in 0..<1000 { #expect(try pair.back.send([UInt8](repeating: 7, count: 4000)) == .wait) }
        #expect(pair.back.oldest == 1, "since when is known")
        #expect(try pair.back.send([UInt8](repeating: 7, count: 100)) == .sent, "small ones go on")
    }

    /// An end that never frees its ring: it is not heard any more, and costs nothing.
    @Test func anEndThatNeverFreesItsRing() throws {
        let pair = try LinkPair(order: 0)
        let memory = try PrivatePages(byteCount: 4096)
        // It sends packets that are to be finished, as if it had seen FINISH_PACKETs that it never takes.
        let reference = UInt64(pair.front.references[0].rawValue)
        for (index, word) in ([2 | 32 << 16, 3, 0x05DC << 32, reference] as [UInt64]).enumerated() {
            memory.slot(at: 0, byteCount: 32).set64(word, at: 8 * index)
        }
        var (rounds, last) = (0, NetChannel2Step.empty)
        while rounds < 4000 {
            let produced = pair.control.loadAcquire(at: NetChannel2Layout.producer(.frontend))
            let consumed = pair.control.loadAcquire(at: NetChannel2Layout.consumer(.frontend))
            if produced &- consumed > 2048 { break }
            rounds += 1
            let (offset, left) = (Int(produced) & 4095, 4096 - (Int(produced) & 4095))
            if left < 32 {
                let pad = NetChannel2Header(.pad, size: left)
                pair.frontendPayload.storeRelease(pad.word, at: offset)
                pair.control.storeRelease(produced &+ UInt32(left), at: NetChannel2Layout.producer(.frontend))
                continue
            }
            pair.frontendPayload.copyIn(at: offset, count: 32, from: memory, at: 0)
            pair.control.storeRelease(produced &+ 32, at: NetChannel2Layout.producer(.frontend))
            last = try pair.back.turn()
            _ = pair.back.flush()
        }
        #expect(last == .blocked && pair.back.owed == 0)
        #expect(rounds > 400 && rounds < 700, "about as many as FINISH_PACKETs fit: \(rounds)")
        #expect(try pair.back.sleep(), "it is not worth staying awake for")
    }

    /// Whatever the frontend writes into the pages that it shares, at whatever time.
    @Test func anything() throws {
        var random = LinkRandom(seed: 4)
        var (faults, heard) = (0, 0)
        for _ in 0..<150 {
            let pair = try LinkPair(order: Int.random(in: 0...2, using: &random), pageCount: 40)
            do {
                for _ in 0..<100 {
                    for _ in 0..<Int.random(in: 0...3, using: &random) {
                        _ = try? pair.front.send(
                            [UInt8](repeating: 9, count: Int.random(in: 14...5000, using: &random))
                        )
                    }
                    _ = pair.front.flush()
                    if Int.random(in: 0..<3, using: &random) == 0 { scribble(pair, &random) }
                    try pair.back.turn()
                    _ = try pair.back.send([UInt8](repeating: 3, count: Int.random(in: 14...5000, using: &random)))
                    _ = pair.back.flush()
                    _ = try pair.back.sleep()
                    _ = try? pair.front.turn()
                    if pair.back.owed > LinkPair.limits.maxPackets { Issue.record("owes \(pair.back.owed)") }
                }
            } catch is NetChannel2LinkFault {
                faults += 1
            }
            heard += pair.back.heard.count
        }
        #expect(faults > 30 && heard > 300, "\(faults) faults, \(heard) packets")
    }

    private func scribble(_ pair: LinkPair, _ random: inout LinkRandom) {
        let word = UInt32(truncatingIfNeeded: random.next())
        if Bool.random(using: &random) {
            pair.control.storeRelease(word & 0x1FFF & ~7, at: 4 * Int.random(in: 0..<32, using: &random))
        } else {
            let offset = Int.random(in: 0..<pair.frontendPayload.byteCount, using: &random) & ~3
            pair.frontendPayload.storeRelease(word & 0x00FF_00FF, at: offset)
        }
    }
}
