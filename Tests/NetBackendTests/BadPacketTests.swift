// Packets of a frontend that is wrong or lies: it loses them or its device, and nobody else notices.

internal import FrontendDrivers
internal import Hypervisor
internal import SharedRing
internal import TestSupport
internal import Testing
internal import XenWire

@testable internal import NetBackend

/// Slots that make no packet.
struct BadPacket: Sendable, CustomTestStringConvertible {
    let testDescription: String
    /// In the error node; for packets that are only dropped, nothing.
    var says = ""
    let slots: @Sendable (RawCard) -> [WireWords]

    init(_ name: String, says: String = "", _ slots: @escaping @Sendable (RawCard) -> [WireWords]) {
        testDescription = name
        self.says = says
        self.slots = slots
    }

    /// One slot with an extra behind it.
    static func extra(_ card: RawCard, _ word: UInt64, _ flags: TransmitFlags = []) -> [WireWords] {
        [card.slot(1, size: 100, flags.union(.extraInfo)), WireWords(low: word, high: 0)]
    }

    /// After these nothing more can be believed.
    static let fatal: [BadPacket] = [
        BadPacket("slots chained without end (XSA-39, XSA-90)", says: "more than 21 slots") { card in
            (0..<256).map { card.slot(UInt16($0), size: $0 == 0 ? 60_000 : 14, .moreData) }
        },
        BadPacket("22 slots", says: "more than 21 slots") { card in
            (0..<22).map { card.slot(UInt16($0), size: $0 == 0 ? 1000 : 14, $0 < 21 ? .moreData : []) }
        },
        BadPacket("the last slots are missing", says: "last slots are missing") { card in
            (0..<3).map { card.slot($0, size: $0 == 0 ? 1000 : 14, .moreData) }
        },
        BadPacket("an extra is announced by the last slot", says: "extra is missing") { card in
            [card.slot(1, size: 100, .extraInfo)]
        },
        BadPacket("an extra announces another that is not there", says: "extra is missing") { card in
            extra(card, ExtraInfo.segmentation(Segmentation(kind: .tcpv4, size: 1000)!).word(more: true))
        },
        BadPacket("an extra of type 0", says: "extra of type 0") { extra($0, 0) },
        BadPacket("an extra of type 6", says: "extra of type 6") { extra($0, 6) },
        BadPacket("an extra of type 255", says: "extra of type 255") { extra($0, 255) },
        BadPacket("segments of 0 bytes", says: "segments of 0 bytes") { extra($0, 1 | 1 << 32, .checksumBlank) },
        BadPacket("segments of type 3", says: "segments of type 3") {
            extra($0, 1 | 1448 << 16 | 3 << 32, .checksumBlank)
        },
        BadPacket("a slot past its page", says: "of its page") { [$0.slot(1, size: 200, offset: 3900)] },
        BadPacket("a first slot of more than a page", says: "of its page") { [$0.slot(1, size: 65_535)] },
        BadPacket("a further slot past its page", says: "of its page") {
            [$0.slot(1, size: 200, .moreData), $0.slot(2, size: 60_000, offset: 60_000)]
        },
        BadPacket("an empty slot past its page (XSA-448)", says: "of its page") {
            [$0.slot(1, size: 200, .moreData), $0.slot(2, size: 0, offset: 4097)]
        },
    ]

    /// These are answered with errors, and the ring goes on.
    static let dropped: [BadPacket] = [
        BadPacket("20 slots (XSA-432)") { card in
            (0..<20).map { card.slot(UInt16($0), size: $0 == 0 ? 1000 : 20, $0 < 19 ? .moreData : []) }
        },
        BadPacket("21 slots") { card in
            (0..<21).map { card.slot(UInt16($0), size: $0 == 0 ? 1000 : 20, $0 < 20 ? .moreData : []) }
        },
        BadPacket("slots that hold more than the packet") {
            [$0.slot(1, size: 100, .moreData), $0.slot(2, size: 101)]
        },
        BadPacket("a first slot too small for the rest") {
            [$0.slot(1, size: 100, .moreData), $0.slot(2, size: 87)]
        },
        BadPacket("a packet of 0 bytes") { [$0.slot(1, size: 0)] },
        BadPacket("a packet of 13 bytes") { [$0.slot(1, size: 13)] },
        BadPacket("a blank checksum in what is not IP") { [$0.slot(1, size: 100, .checksumBlank)] },
        BadPacket("a grant that is none") { card in
            [RawNetworkQueue.request(GrantReference(0xFFFF_FFF0), id: 1, size: 100)]
        },
        BadPacket("a grant that is none, at the end of a packet (XSA-374)") { card in
            [
                card.slot(1, size: 200, .moreData),
                RawNetworkQueue.request(GrantReference(77_777), id: 2, size: 100),
            ]
        },
    ]
}

extension SimulatedNetworkTests {
    @Suite struct BadPacketTests {
        @Test(arguments: BadPacket.fatal)
        func theDeviceIsClosed(bad: BadPacket) async throws {
            let card = try await RawCard()
            try await card.sends()
            card.queue.transmit.send(bad.slots(card))
            try await card.scene.isClosed(saying: bad.says)
            #expect(try card.scene.wire.receive() == nil)
            try await card.end(victimServes: false)
        }

        /// Its copies are in the loop's batch by then, one of them of a page that nobody can read: its neighbours' packets
        /// are none the worse for it.
        @Test(arguments: BadPacket.fatal)
        func whatWasBegunIsNotLeftToTheNeighbours(bad: BadPacket) async throws {
            let card = try await RawCard()
            card.fill(1, Frames.plain(80))
            let unreadable = RawNetworkQueue.request(GrantReference(0xFFFF_FFF0), id: 50, size: 100)
            card.queue.transmit.send([unreadable, card.slot(51, size: 80, page: 1)] + bad.slots(card).prefix(254))
            try await card.scene.isClosed(saying: bad.says)
            try await card.end(victimServes: false)
        }

        /// Good packets before and behind it are carried, in the same batch.
        @Test(arguments: BadPacket.dropped)
        func thePacketIsDropped(bad: BadPacket) async throws {
            let card = try await RawCard()
            card.fill(1, Frames.plain(80, seed: 1))
            card.fill(2, Frames.plain(90, seed: 2))
            let slots = bad.slots(card)
            let answers = await card.statuses(
                [card.slot(50, size: 80, page: 1)] + slots + [card.slot(51, size: 90, page: 2)]
            )
            #expect(answers == [0] + slots.map { _ in -1 } + [0])
            #expect(await (try card.scene.wire).next()?.bytes == Frames.plain(80, seed: 1))
            #expect(await (try card.scene.wire).next()?.bytes == Frames.plain(90, seed: 2))
            #expect(try await card.scene.counter("tx-frontend-faults") == 1)
            try await card.end()
        }

        /// Segments of another protocol than the packet's, or of none.
        @Test(arguments: [Segmentation.Kind.tcpv4, .tcpv6])
        func segmentsOfAnotherProtocol(kind: Segmentation.Kind) async throws {
            let card = try await RawCard()
            let extra = ExtraInfo.segmentation(Segmentation(kind: kind, size: 500)!).word()
            for bytes in [Frames.plain(2000), Frames.tcp(2000, isV6: kind == .tcpv4), Frames.udp(2000)] {
                card.fill(0, bytes)
                let flags: TransmitFlags = [.checksumBlank, .extraInfo]
                let slots = [card.slot(1, size: UInt16(bytes.count), flags), WireWords(low: extra, high: 0)]
                #expect(await card.statuses(slots) == [-1, 1])
            }
            #expect(try await card.scene.counter("tx-packets") == 0)
            #expect(try card.scene.wire.receive() == nil)
            try await card.end()
        }

        /// XSA-448: slots without bytes are no fragments of the packet.
        @Test func emptySlots() async throws {
            let card = try await RawCard()
            let bytes = Frames.plain(100)
            card.fill(0, Array(bytes[0..<60]))
            card.fill(1, Array(bytes[60..<100]))
            var slots = [card.slot(1, size: 100, .moreData)]
            for id in 2..<10 { slots.append(card.slot(UInt16(id), size: 0, .moreData, offset: 4096)) }
            slots.append(card.slot(10, size: 40, page: 1))
            #expect(await card.statuses(slots) == [Int16](repeating: 0, count: 10))
            #expect(await (try card.scene.wire).next()?.bytes == bytes)
            try await card.end()
        }

        /// XSA-423: wherever the frontend cuts, the host is told to put all headers into one piece, and where they end.
        @Test(
            arguments: [[14, 20, 20], [20, 7, 1, 30], [33, 1, 1, 1, 14, 4, 1], [14, 36, 1, 1, 1, 1]],
            [false, true]
        )
        func headersInPieces(cuts: [Int], blank: Bool) async throws {
            let card = try await RawCard()
            let bytes = Frames.tcp(4000, blank: blank)
            var slots: [WireWords] = []
            var start = 0
            let pieces = cuts + [1500, bytes.count - cuts.reduce(0, +) - 1500]
            for (number, size) in pieces.enumerated() {
                card.fill(number, Array(bytes[start..<start + size]), at: 17 * number)
                var flags: TransmitFlags = number < pieces.count - 1 ? .moreData : []
                if number == 0 { flags.formUnion(blank ? [.checksumBlank, .extraInfo] : .extraInfo) }
                let count = UInt16(number == 0 ? bytes.count : size)
                slots.append(card.slot(UInt16(number), size: count, flags, page: number, offset: UInt16(17 * number)))
                start += size
            }
            let extra = ExtraInfo.segmentation(Segmentation(kind: .tcpv4, size: 1000)!).word()
            slots.insert(WireWords(low: extra, high: 0), at: 1)
            let answers = await card.statuses(slots)
            #expect(answers == [0, 1] + [Int16](repeating: 0, count: pieces.count - 1))
            var header = Frames.header(bytes, segmentSize: 1000)
            header.headerLength = 128
            #expect(await (try card.scene.wire).next() == WireFrame(header: header, bytes: Frames.tcp(4000)))
            try await card.end()
        }

        /// XSA-216: an answer has four bytes; nothing else of the slot is written, and nothing of ours comes with it.
        @Test func answersSayNoMoreThanTheyMust() async throws {
            let card = try await RawCard()
            try await card.sends(id: 0x1234)
            let sent = card.slot(0x1234, size: 100)
            let rest = (0..<8).map { index -> UInt8 in
                let place = index + 4
                return UInt8(truncatingIfNeeded: (place < 8 ? sent.low : sent.high) >> UInt64(8 * (place & 7)))
            }
            #expect(Array(card.queue.transmit.bytes(at: 0)[4..<12]) == rest)
            #expect(card.queue.transmit.bytes(at: 0, count: 4) == [0x34, 0x12, 0, 0])
            try await card.end()
        }

        /// XSA-39: a producer further ahead than the ring has slots, or behind.
        @Test(arguments: [257, 0x8000_0000, 0xFFFF_FFFF] as [UInt32], [false, true])
        func producerLies(producer: UInt32, isReceive: Bool) async throws {
            let card = try await RawCard()
            let ring = isReceive ? card.queue.receive : card.queue.transmit
            ring.requestProducer = producer
            ring.notify()
            if isReceive { try card.scene.wire.send(WireFrame(bytes: Frames.plain(60))) }
            try await card.scene.isClosed(saying: "broke its ring")
            try await card.end(victimServes: false)
        }
    }
}
