// Packets put together from slots: what arrives, what is dropped, what closes the device.

import Testing
import XenWire

/// A slot, in words.
enum Slot {
    /// Offset, flags, size. Its id and its reference are its place in the ring, plus 100 and 1000.
    case data(UInt16, TransmitFlags, UInt16)
    case extra(ExtraInfo, more: Bool = false)
    case bytes(String)
}

/// Feeds slots and remembers how it ended. `nil` as step: the ring ended before the packet did.
struct Parsed {
    var step: TransmitParser.Step?
    var fault: NetRingFault?
    var fed = 0
    var fragments: [TransmitFragment] = []
    var answers: [[UInt8]] = []
    var byteCount = 0

    init(_ slots: [Slot], _ parser: inout TransmitParser) {
        do throws(NetRingFault) {
            for (place, slot) in slots.enumerated() {
                let step = try parser.feed(Parsed.bytes(of: slot, at: UInt16(place)))
                fed += 1
                if step != .needsMore {
                    self.step = step
                    collect(parser)
                    return
                }
            }
            try parser.ended()
        } catch { fault = error }
    }

    private mutating func collect(_ parser: borrowing TransmitParser) {
        if step == .packet {
            for index in 0..<parser.fragmentCount { fragments.append(parser.fragment(index)) }
        }
        for slot in 0..<parser.slotCount {
            answers.append(NetGoldenBytes.bytes(of: parser.response(toSlot: slot, .okay), 4))
        }
        byteCount = parser.byteCount
    }

    init(_ slots: [Slot]) {
        var parser = TransmitParser()
        self.init(slots, &parser)
    }

    static func bytes(of slot: Slot, at place: UInt16) -> TestBytes {
        let bytes = TestBytes(count: 12)
        switch slot {
        case .data(let offset, let flags, let size):
            let words = TransmitRequest<TestBytes>.words(
                GrantReference(UInt32(place) + 1000),
                offset: offset,
                flags: flags,
                id: place + 100,
                size: size
            )
            bytes.set64(words.low, at: 0)
            bytes.set32(UInt32(truncatingIfNeeded: words.high), at: 8)
        case .extra(let extra, let more):
            bytes.set64(extra.word(more: more), at: 0)
            bytes.set32(0xFFFF_FFFF, at: 8)
        case .bytes(let text): return TestBytes(text)
        }
        return bytes
    }
}

/// A packet of `further` slots of `size` bytes behind a first one of 100.
private func chain(_ further: Int, size: UInt16 = 10, offset: UInt16 = 0, open: Bool = false) -> [Slot] {
    let total = UInt16(truncatingIfNeeded: 100 + further * Int(size))
    var slots: [Slot] = [.data(0, further == 0 ? [] : .moreData, total)]
    for index in 0..<further { slots.append(.data(offset, index == further - 1 && !open ? [] : .moreData, size)) }
    return slots
}

private let segments = Segmentation(kind: .tcpv4, size: 1448)!

@Suite struct TransmitPackets {
    @Test func onePage() {
        let parsed = Parsed([.data(96, [.checksumBlank, .dataValidated], 1514)])
        #expect(parsed.step == .packet)
        #expect(parsed.byteCount == 1514)
        #expect(parsed.fragments.map(\.reference) == [GrantReference(1000)])
        #expect(parsed.fragments.map(\.offset) == [96])
        #expect(parsed.fragments.map(\.byteCount) == [1514])
        #expect(parsed.answers == [[100, 0, 0, 0]])
    }

    @Test func theFirstSlotHasWhatTheOthersLeave() {
        let parsed = Parsed([
            .data(4000, [.moreData, .extraInfo], 8202), .extra(.segmentation(segments)), .data(0, .moreData, 4096),
            .data(7, [], 4010),
        ])
        #expect(parsed.step == .packet)
        #expect(parsed.fragments.map(\.byteCount) == [96, 4096, 4010])
        #expect(parsed.fragments.map(\.offset) == [4000, 0, 7])
        #expect(parsed.fragments.map(\.reference.rawValue) == [1000, 1002, 1003])
        // The extra's slot is answered with NULL.
        #expect(parsed.answers == [[100, 0, 0, 0], [0, 0, 1, 0], [102, 0, 0, 0], [103, 0, 0, 0]])
    }

    @Test func whatTheExtrasSay() {
        var parser = TransmitParser()
        let slots: [Slot] = [
            .data(0, [.extraInfo, .checksumBlank], 100), .extra(.hash(nil), more: true),
            .extra(.segmentation(segments), more: true), .extra(.headroom(0)),
        ]
        let first = Parsed(slots, &parser)
        #expect(first.step == .packet)
        let (extras, slotCount, segmentation, flags) = (
            parser.extraCount, parser.slotCount, parser.segmentation, parser.flags
        )
        #expect(extras == 3 && slotCount == 4)
        #expect(segmentation == segments)
        #expect(flags == [.extraInfo, .checksumBlank])
        // Nothing of it is left in the next packet.
        #expect(Parsed([.data(0, [], 60)], &parser).step == .packet)
        let after = (parser.extraCount, parser.slotCount, parser.segmentation)
        #expect(after.0 == 0 && after.1 == 1 && after.2 == nil)
    }

    /// The extra flag of a later slot means nothing.
    @Test func onlyTheFirstSlotAnnouncesExtras() {
        let parsed = Parsed([.data(0, .moreData, 200), .data(0, .extraInfo, 100)])
        #expect(parsed.step == .packet)
    }

    @Test func multicastRequestsHaveNoData() {
        let (group, other) = (NetGoldenBytes.address, MACAddress(0x33, 0x33, 0, 0, 0, 1))
        let added = Parsed([.data(0, [.extraInfo, .moreData], 0), .extra(.multicastAdd(group))])
        #expect(added.step == .multicast(.add(group)))
        #expect(added.answers == [[100, 0, 0, 0], [0, 0, 1, 0]])
        #expect(
            Parsed([.data(9999, .extraInfo, 65535), .extra(.multicastDelete(group))]).step == .multicast(.delete(group))
        )
        let both: [Slot] = [
            .data(0, .extraInfo, 0), .extra(.multicastAdd(group), more: true), .extra(.multicastDelete(other)),
        ]
        #expect(Parsed(both).step == .multicast(.add(group)))
    }

    @Test(arguments: [0, 1, 16, 17, 18])
    func asManySlotsAsAllowed(_ further: Int) {
        let parsed = Parsed(chain(further))
        #expect(parsed.step == .packet)
        #expect(parsed.fragments.count == further + 1)
        #expect(parsed.fragments[0].byteCount == 100)
        #expect(parsed.answers.count == further + 1)
    }

    @Test func theLargestPacket() {
        let slots = [Slot.data(0, .moreData, 65535)] + (1...15).map { .data(0, $0 < 15 ? .moreData : [], 4096) }
        let parsed = Parsed(slots)
        #expect(parsed.step == .packet)
        #expect(parsed.fragments[0].byteCount == 4095)
        #expect(parsed.fragments.reduce(0) { $0 + Int($1.byteCount) } == 65535)
    }
}

@Suite struct HostileTransmitSlots {
    @Test(arguments: [0, 1, 13] as [UInt16])
    func shorterThanAnEthernetHeader(_ size: UInt16) {
        let parsed = Parsed([.data(0, [], size)])
        #expect(parsed.step == .dropped(.firstTooShort(Int(size))))
        #expect(parsed.answers.count == 1)
        // The packet is long enough, but its first slot is not.
        let split = Parsed([.data(0, .moreData, 100 + size), .data(0, [], 100)])
        #expect(split.step == .dropped(.firstTooShort(Int(size))))
        #expect(split.answers.count == 2)
    }

    /// XSA-39: nonsense in the ring is found in bounded time and ends the device, not the domain.
    @Test func xsa39SlotsChainedWithoutEnd() {
        let parsed = Parsed(chain(255, open: true))
        #expect(parsed.fault == .tooManySlots)
        #expect(parsed.fed == 21)
    }

    @Test func xsa39ExtrasChainedWithoutEnd() {
        let slots = [.data(0, .extraInfo, 100)] + [Slot](repeating: .extra(.hash(nil), more: true), count: 255)
        let parsed = Parsed(slots)
        #expect(parsed.fault == .missingExtra)
        #expect(parsed.fed == 256)
    }

    @Test func xsa39TheRingEndsInsideAPacket() {
        #expect(Parsed([.data(0, .extraInfo, 100)]).fault == .missingExtra)
        #expect(Parsed([.data(0, .moreData, 100)]).fault == .missingData)
        #expect(Parsed([.data(0, [.moreData, .extraInfo], 100), .extra(.hash(nil))]).fault == .missingData)
        #expect(Parsed([]).fault == nil)
    }

    /// XSA-432: many tiny slots do not run over the room for fragments.
    @Test(arguments: [19, 20])
    func xsa432MoreSlotsThanAPacketMayHave(_ further: Int) {
        let parsed = Parsed(chain(further, size: 1))
        #expect(parsed.step == .dropped(.tooManySlots))
        #expect(parsed.answers.count == further + 1)
        #expect(parsed.answers.last == [UInt8(100 + further), 0, 0, 0])
    }

    @Test func xsa432MoreSlotsThanAnyHonestFrontendSends() {
        #expect(Parsed(chain(21, size: 1)).fault == .tooManySlots)
    }

    /// XSA-448: slots without bytes are answered, and nobody sees a fragment without bytes.
    @Test func xsa448EmptySlots() {
        let parsed = Parsed([
            .data(0, .moreData, 100), .data(4096, .moreData, 0), .data(0, .moreData, 40), .data(0, [], 0),
        ])
        #expect(parsed.step == .packet)
        #expect(parsed.fragments.map(\.byteCount) == [60, 40])
        #expect(parsed.answers.count == 4)
        #expect(Parsed(chain(18, size: 0)).fragments.count == 1)
    }

    @Test func xsa448AnEmptySlotBehindItsPage() {
        let slots: [Slot] = [.data(0, .moreData, 100), .data(4097, [], 0)]
        #expect(Parsed(slots).fault == .crossesPage(offset: 4097, size: 0))
    }

    @Test(arguments: [(1, 4096), (4096, 1), (65535, 65535), (0, 4097), (65535, 1)] as [(UInt16, UInt16)])
    func bytesBehindThePage(_ offset: UInt16, _ size: UInt16) {
        let further: [Slot] = [.data(0, .moreData, 65535), .data(offset, [], size)]
        #expect(Parsed(further).fault == .crossesPage(offset: offset, size: size))
        if size >= 14 { #expect(Parsed([.data(offset, [], size)]).fault == .crossesPage(offset: offset, size: size)) }
    }

    /// What is left for the first slot does not fit its page either.
    @Test func theFirstSlotBehindItsPage() {
        #expect(
            Parsed([.data(4090, .moreData, 200), .data(0, [], 100)]).fault == .crossesPage(offset: 4090, size: 100)
        )
    }

    /// A packet of 64 KiB or more, whose size wrapped.
    @Test func slotsThatHoldMoreThanThePacket() {
        let wrapped = Parsed([
            .data(0, .moreData, 100), .data(0, .moreData, 60), .data(0, .moreData, 60), .data(0, [], 9),
        ])
        #expect(wrapped.step == .dropped(.sizeMismatch))
        #expect(wrapped.answers.count == 4)
        // It is consumed whole, and still fatal if one of its slots crosses a page.
        let crossing = Parsed([.data(0, .moreData, 100), .data(0, .moreData, 200), .data(4000, [], 100)])
        #expect(crossing.fault == .crossesPage(offset: 4000, size: 100))
    }

    @Test(
        arguments: [
            ("01 00 0000 01000000 00000000", .segmentationSize), ("01 00 A805 03000000 00000000", .segmentationKind(3)),
            ("00 00 0000 00000000 00000000", .unknownExtra(0)), ("06 00 0000 00000000 00000000", .unknownExtra(6)),
        ] as [(String, NetRingFault)]
    )
    func extrasThatMakeNoSense(_ text: String, _ fault: NetRingFault) {
        #expect(Parsed([.data(0, .extraInfo, 100), .bytes(text)]).fault == fault)
    }

    /// A parser that dropped a packet begins anew with the next.
    @Test func afterADroppedPacket() {
        var parser = TransmitParser()
        #expect(Parsed(chain(20, size: 1), &parser).step == .dropped(.tooManySlots))
        let next = Parsed(chain(18), &parser)
        #expect(next.step == .packet)
        #expect(next.fragments.count == 19)
    }

    /// Random slots: none traps, and what gets through keeps its promises.
    @Test func random() {
        var generator = SeededGenerator(seed: 0x6e65_7469)
        var passed = 0
        var parser = TransmitParser()
        for _ in 0..<20000 {
            let slots = (0..<Int.random(in: 1...24, using: &generator)).map { _ in
                Slot.data(
                    UInt16.random(in: 0...(Bool.random(using: &generator) ? 5000 : 200), using: &generator),
                    TransmitFlags(rawValue: UInt16.random(in: 0...15, using: &generator)),
                    UInt16.random(in: 0...(Bool.random(using: &generator) ? 65535 : 3000), using: &generator)
                )
            }
            let parsed = Parsed(slots, &parser)
            if parsed.fault != nil { parser = TransmitParser() }
            guard parsed.step == .packet else { continue }
            passed += 1
            #expect(parsed.answers.count == parsed.fed)
            #expect(parsed.fragments.allSatisfy { Int($0.offset) + Int($0.byteCount) <= 4096 && $0.byteCount > 0 })
            #expect(parsed.fragments.reduce(0) { $0 + Int($1.byteCount) } == parsed.byteCount)
        }
        #expect(passed > 1000, "the test must also see packets that pass: \(passed)")
    }
}
