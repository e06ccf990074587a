// Back and front ring against each other: order, wrap, a full ring, notification, a successor.

import SharedRing
import Testing
import XenWire

@Suite struct Rings {
    @Test(arguments: [
        (1, 112, 32), (1, 108, 32), (2, 112, 64), (4, 112, 128), (8, 112, 256), (16, 112, 512), (16, 108, 512),
        (1, 148, 16), (1, 4, 512), (1, 12, 256), (1, 8, 256), (1, 4033, 0),
    ])
    func slotsInPages(_ pages: Int, _ stride: Int, _ slots: Int) {
        #expect(BackRing.slots(pageCount: pages, stride: stride) == slots)
    }

    /// From just below 2³² on, so that each index wraps on the way.
    @Test(arguments: [0, UInt32.max - 40, UInt32.max, 1 << 31])
    func everyRequestArrivesOnceInOrder(_ start: UInt32) throws {
        let pair = try RingPair(startingAt: start)
        var asked: UInt32 = 0
        var served: UInt32 = 0
        var heard: UInt32 = 0
        var generator = SystemRandomNumberGenerator()
        while heard < 2000 {
            for _ in 0..<Int.random(in: 0...40, using: &generator) where pair.free > 0 {
                pair.ask(asked)
                asked += 1
            }
            _ = pair.push()
            for _ in 0..<Int.random(in: 0...40, using: &generator) {
                guard let number = try pair.take() else { break }
                #expect(number == served)
                pair.answer(number ^ 0xFFFF)
                served += 1
            }
            _ = pair.publish()
            while let number = try pair.hear() {
                #expect(number == heard ^ 0xFFFF)
                heard += 1
            }
        }
        #expect(pair.asked == start &+ asked)
        #expect(pair.consumed == start &+ served)
    }

    /// Who waits for several is told once they are there, however the frontend puts them, and not before.
    @Test(arguments: [0, UInt32.max - 2])
    func theEventComesWhenEnoughRequestsWait(_ start: UInt32) throws {
        let pair = try RingPair(startingAt: start)
        pair.ask(0)
        _ = pair.push()
        #expect(try pair.lookBack(for: 4) == 1)
        for number in 1...2 as ClosedRange<UInt32> {
            pair.ask(number)
            #expect(!pair.push())
        }
        pair.ask(3)
        #expect(pair.push())
        #expect(try pair.lookBack(for: 4) == 4)
        pair.ask(4)
        #expect(!pair.push())
    }

    @Test func aFullRingIsServedWhole() throws {
        let pair = try RingPair(pageCount: 16, startingAt: UInt32.max - 100)
        for number in 0..<512 as Range<UInt32> { pair.ask(number) }
        #expect(pair.free == 0)
        #expect(pair.push())
        #expect(try pair.pollBack() == 512)
        for number in 0..<512 as Range<UInt32> {
            #expect(try pair.take() == number)
            pair.answer(number)
        }
        #expect(pair.waiting == 0)
        // Answered but not published: the slots are not the frontend's yet.
        #expect(try pair.pollFront() == 0)
        #expect(pair.publish())
        #expect(try pair.pollFront() == 512)
        #expect(pair.free == 0)
        for number in 0..<512 as Range<UInt32> { #expect(try pair.hear() == number) }
        #expect(pair.free == 512)
    }

    @Test func nothingIsSeenBeforeItIsPushed() throws {
        let pair = try RingPair()
        pair.ask(1)
        #expect(try pair.pollBack() == 0)
        _ = pair.push()
        #expect(try pair.pollBack() == 1)
    }

    /// ring.h: the other end asks for an event at an index, and gets it when a push moves across that index.
    @Test(
        arguments: [
            // already published, then put and pushed; the index the other end asks for; is it told?
            (0, 1, 1, true), (0, 1, 2, false), (0, 3, 2, true), (2, 3, 2, false), (2, 3, 3, true), (2, 1, 3, true),
            (5, 1, 1, false), (0, 0, 1, false), (3, 0, 3, false),
        ] as [(UInt32, UInt32, UInt32, Bool)]
    )
    func notificationIsHeldOff(_ before: UInt32, _ pushed: UInt32, _ event: UInt32, _ isTold: Bool) throws {
        for start in [0, UInt32.max - 1] {
            let pair = try RingPair(startingAt: start)
            for number in 0..<before { pair.ask(number) }
            _ = pair.push()
            pair.pages.storeRelease(start &+ event, at: RingLayout.requestEvent)
            for number in 0..<pushed { pair.ask(number) }
            #expect(pair.push() == isTold)

            for _ in 0..<before + pushed { _ = try pair.take() }
            for number in 0..<before { pair.answer(number) }
            _ = pair.publish()
            pair.pages.storeRelease(start &+ event, at: RingLayout.responseEvent)
            for number in 0..<pushed { pair.answer(number) }
            #expect(pair.publish() == isTold)
        }
    }

    @Test func theLastLookFindsWhatCameInBetween() throws {
        let pair = try RingPair()
        #expect(try pair.lookBack() == 0)
        pair.ask(1)
        #expect(pair.push(), "the back asked for an event at the next request")
        #expect(try pair.take() == 1)
        pair.ask(2)
        #expect(!pair.push(), "the back has not asked again")
        #expect(try pair.lookBack() == 1)
        #expect(try pair.take() == 2)
        #expect(try pair.lookFront() == 0)
        pair.answer(1)
        #expect(pair.publish())
        pair.answer(2)
        #expect(!pair.publish())
        #expect(try pair.lookFront() == 2)
    }

    /// A backend dies with requests taken and answers not published; its successor goes on from the shared page.
    @Test(arguments: [0, UInt32.max - 3])
    func aSuccessorGoesOnFromThePublishedResponses(_ start: UInt32) throws {
        let pair = try RingPair(startingAt: start)
        for number in 0..<10 as Range<UInt32> { pair.ask(number) }
        _ = pair.push()
        for _ in 0..<6 { _ = try pair.take() }
        for number in 0..<3 as Range<UInt32> { pair.answer(number) }
        _ = pair.publish()

        let published = BackRing.publishedResponses(in: pair.pages)
        #expect(published == start &+ 3)
        // Without a journal, as in a backend that answers in order: what was not answered is read again.
        var again = BackRing(pages: pair.pages, stride: 112, consumed: published, produced: published)
        let waiting = try again.poll()
        #expect(waiting == 7)
        again.takeNext(into: pair.taken, count: 112)
        #expect(pair.taken.u32(0) == 3)
        // With one: the six that were taken are known; three of them wait for an answer.
        pair.back = BackRing(pages: pair.pages, stride: 112, consumed: start &+ 6, produced: published)
        for number in 3..<6 as Range<UInt32> { pair.answer(number) }
        while let number = try pair.take() { pair.answer(number) }
        _ = pair.publish()
        for number in 0..<10 as Range<UInt32> { #expect(try pair.hear() == number) }
    }

    /// XSA-216: exactly the response's bytes change, and nothing else goes out.
    @Test(arguments: [4, 8, 12, 16])
    func aResponseIsWrittenWholeAndNothingElse(_ count: Int) throws {
        let pair = try RingPair()
        for offset in 0..<112 { pair.request.set8(0xAA, at: offset) }
        pair.front.put(request: pair.request, count: 112)
        _ = pair.push()
        _ = try pair.take()
        pair.back.put(WireWords(low: 0x0706_0504_0302_0100, high: 0x0F0E_0D0C_0B0A_0908), count: count)
        _ = pair.publish()
        _ = try pair.pollFront()
        pair.front.takeNext(into: pair.taken, count: 112)
        let expected = (0..<112).map { $0 < count ? UInt8($0) : 0xAA }
        #expect((0..<112).map { pair.taken.u8($0) } == expected)
    }

    /// The strides of the network rings and of USB's connection ring, all bytes of each slot, across the wrap at 2³².
    @Test(arguments: [(12, 12, 4, 256), (8, 8, 8, 256), (16, 16, 12, 128), (4, 2, 4, 512)])
    func ringsOfSmallSlots(_ stride: Int, _ request: Int, _ response: Int, _ slots: UInt32) throws {
        let pair = try RingPair(stride: stride, startingAt: UInt32.max - 100)
        #expect(pair.free == slots)
        var generator = SystemRandomNumberGenerator()
        for _ in 0..<3 {
            let asked = (0..<slots).map { _ in WireWords(low: generator.next(), high: generator.next()) }
            for words in asked { pair.front.put(words, count: request) }
            #expect(pair.free == 0)
            _ = pair.push()
            #expect(try pair.pollBack() == slots)
            for words in asked {
                pair.back.takeNext(into: pair.taken, count: request)
                #expect(bytes(of: pair.taken, request) == bytes(of: words, request))
                pair.back.put(WireWords(low: ~words.low, high: ~words.high), count: response)
            }
            _ = pair.publish()
            #expect(try pair.pollFront() == slots)
            for words in asked {
                pair.front.takeNext(into: pair.taken, count: response)
                let expected = WireWords(low: ~words.low, high: ~words.high)
                #expect(bytes(of: pair.taken, response) == bytes(of: expected, response))
            }
        }
        #expect(pair.asked == UInt32.max &- 100 &+ 3 &* slots)
    }
}

extension Rings {
    /// USB's URB ring: requests of 148 bytes, responses of 16 in the same slots, whose other bytes stay the request's.
    @Test func ringsOfLargeSlotsAndSmallResponses() throws {
        let pair = try RingPair(stride: 148, startingAt: UInt32.max - 20)
        var generator = SystemRandomNumberGenerator()
        for round in 0..<5 {
            let asked = (0..<16).map { _ in (0..<148).map { _ in UInt8.random(in: 0...255, using: &generator) } }
            for request in asked {
                for (offset, byte) in request.enumerated() { pair.request.set8(byte, at: offset) }
                pair.front.put(request: pair.request, count: 148)
            }
            #expect(pair.free == 0)
            _ = pair.push()
            #expect(try pair.pollBack() == 16)
            for request in asked {
                pair.back.takeNext(into: pair.taken, count: 148)
                #expect(bytes(of: pair.taken, 148) == request)
            }
            for number in 0..<16 as Range<UInt64> {
                pair.back.put(WireWords(low: number, high: UInt64(round)), count: 16)
            }
            _ = pair.publish()
            #expect(try pair.pollFront() == 16)
            for (number, request) in asked.enumerated() {
                pair.front.takeNext(into: pair.taken, count: 148)
                let words = WireWords(low: UInt64(number), high: UInt64(round))
                #expect(bytes(of: pair.taken, 148) == bytes(of: words, 16) + request[16...])
            }
        }
    }

    /// A connection ring's backend holds all requests until it has something to say, in whatever turn.
    @Test func requestsThatWaitForEvents() throws {
        let pair = try RingPair(stride: 4)
        for number in 0..<512 as Range<UInt64> { pair.front.put(WireWords(low: number, high: 0), count: 2) }
        _ = pair.push()
        #expect(try pair.pollBack() == 512)
        for number in 0..<1200 as Range<UInt64> {
            pair.back.takeNext(into: pair.taken, count: 2)
            #expect(pair.taken.u16(0) == UInt16(number % 512))
            pair.back.put(WireWords(low: UInt64(pair.taken.u16(0)) | 0x0301_0000, high: 0), count: 4)
            _ = pair.publish()
            #expect(try pair.hear() == UInt32(number % 512) | 0x0301_0000)
            pair.front.put(WireWords(low: number % 512, high: 0), count: 2)
            _ = pair.push()
            _ = try pair.lookBack()
        }
        #expect(pair.waiting == 512)
    }
}

private func bytes(of slot: Slot, _ count: Int) -> [UInt8] { (0..<count).map { slot.u8($0) } }

private func bytes(of words: WireWords, _ count: Int) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: ($0 < 8 ? words.low : words.high) >> UInt64($0 % 8 * 8)) }
}
