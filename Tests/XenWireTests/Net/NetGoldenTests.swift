// Golden bytes of netif.h, written down from the header's own pictures.

import Testing
import XenWire

@Suite struct NetGoldenBytes {
    static func bytes(of words: WireWords, _ count: Int) -> [UInt8] {
        let all = TestBytes(count: 16)
        all.set64(words.low, at: 0)
        all.set64(words.high, at: 8)
        return [UInt8](all.bytes[..<count])
    }

    @Test func transmitRequest() {
        let slot = TestBytes("DDCCBBAA 3412 0500 FF00 EA05")
        let request = TransmitRequest(slot)
        #expect(request.reference == GrantReference(0xAABB_CCDD))
        #expect(request.offset == 0x1234)
        #expect(request.flags == [.checksumBlank, .moreData])
        #expect(request.id == 255)
        #expect(request.size == 1514)
        let words = TransmitRequest<TestBytes>.words(
            GrantReference(0xAABB_CCDD),
            offset: 0x1234,
            flags: [.checksumBlank, .moreData],
            id: 255,
            size: 1514
        )
        #expect(NetGoldenBytes.bytes(of: words, 12) == slot.bytes)
    }

    @Test(
        arguments: [
            (.okay, "3412 0000"), (.error, "3412 FFFF"), (.dropped, "3412 FEFF"), (.null, "3412 0100"),
        ] as [(TransmitStatus, String)]
    )
    func transmitResponse(_ status: TransmitStatus, _ text: String) {
        let slot = TestBytes(text)
        #expect(NetGoldenBytes.bytes(of: TransmitResponse.words(id: 0x1234, status: status), 4) == slot.bytes)
        #expect(TransmitResponse(decoding: slot).id == 0x1234)
        #expect(TransmitResponse(decoding: slot).status == status.rawValue)
    }

    @Test func receiveRequest() {
        let slot = TestBytes("3412 0000 DDCCBBAA")
        let request = ReceiveRequest(id: 0x1234, reference: GrantReference(0xAABB_CCDD))
        #expect(ReceiveRequest(decoding: slot) == request)
        #expect(NetGoldenBytes.bytes(of: request.words, 8) == slot.bytes)
    }

    @Test(
        arguments: [
            (4096, "3412 0200 0D00 0010"), (0, "3412 0200 0D00 0000"), (-1, "3412 0200 0D00 FFFF"),
        ] as [(Int16, String)]
    )
    func receiveResponse(_ status: Int16, _ text: String) {
        let slot = TestBytes(text)
        let flags: ReceiveFlags = [.dataValidated, .moreData, .extraInfo]
        let words = ReceiveResponse.words(id: 0x1234, offset: 2, flags: flags, status: status)
        #expect(NetGoldenBytes.bytes(of: words, 8) == slot.bytes)
        let response = ReceiveResponse(decoding: slot)
        #expect(response.id == 0x1234 && response.offset == 2 && response.flags == flags && response.status == status)
    }

    @Test func theFlagsOfBothDirections() {
        #expect(TransmitFlags.checksumBlank.rawValue == 1 && TransmitFlags.dataValidated.rawValue == 2)
        #expect(ReceiveFlags.checksumBlank.rawValue == 2 && ReceiveFlags.dataValidated.rawValue == 1)
    }

    static let address = MACAddress(0x01, 0x00, 0x5E, 0x7F, 0xFF, 0xFA)
    static let extras: [(ExtraInfo, Bool, String)] = [
        (.segmentation(Segmentation(kind: .tcpv4, size: 1448)!), false, "01 00 A805 01 00 0000"),
        (.segmentation(Segmentation(kind: .tcpv6, size: 1)!), true, "01 01 0100 02 00 0000"),
        (.multicastAdd(address), false, "02 00 01005E7FFFFA"),
        (.multicastDelete(address), true, "03 01 01005E7FFFFA"),
        (.hash(PacketHash(kind: .ipv6TCP, value: 0x1122_3344)), false, "04 00 03 01 44332211"),
        (.headroom(256), false, "05 00 0001 00000000"),
    ]

    @Test(arguments: NetGoldenBytes.extras)
    func extra(_ extra: ExtraInfo, _ more: Bool, _ text: String) throws {
        let slot = TestBytes(text)
        #expect(try ExtraInfo(word: slot.u64(0)) == extra)
        #expect(ExtraInfo.hasMore(word: slot.u64(0)) == more)
        #expect(extra.word(more: more) == slot.u64(0))
    }

    @Test(
        arguments: [
            ("00 00 0000 00000000", .unknownExtra(0)), ("06 00 0000 00000000", .unknownExtra(6)),
            ("FF FF FFFF FFFFFFFF", .unknownExtra(255)), ("01 00 0000 01000000", .segmentationSize),
            ("01 00 0100 00000000", .segmentationKind(0)), ("01 00 0100 03000000", .segmentationKind(3)),
        ] as [(String, NetRingFault)]
    )
    func wrongExtras(_ text: String, _ fault: NetRingFault) {
        #expect(throws: fault) { _ = try ExtraInfo(word: TestBytes(text).u64(0)) }
    }

    /// Advice that makes no sense is not taken, and no reason to drop anything.
    @Test(arguments: ["04 00 04 01 44332211", "04 00 00 02 44332211"])
    func hashesOfNoKnownKind(_ text: String) throws {
        #expect(try ExtraInfo(word: TestBytes(text).u64(0)) == .hash(nil))
    }
}

@Suite struct MACAddresses {
    @Test func parsedAndPrinted() {
        let address = MACAddress(text: "00:16:3E:0a:bc:DE")
        #expect(address == MACAddress(0x00, 0x16, 0x3E, 0x0A, 0xBC, 0xDE))
        #expect(address?.description == "00:16:3e:0a:bc:de")
        #expect(address?.isGroup == false)
        #expect(MACAddress(TestBytes("FF 00163E0ABCDE"), at: 1) == address)
        #expect(MACAddress(text: "ff:ff:ff:ff:ff:ff") == .broadcast)
        #expect(MACAddress.broadcast.isGroup && MACAddress.broadcast.isBroadcast)
        #expect(MACAddress(text: "01:00:5e:00:00:01")?.isGroup == true)
        #expect(MACAddress(text: "01:00:5e:00:00:01")?.isBroadcast == false)
    }

    @Test(arguments: [
        "", ":", "00", "00:16:3e:0a:bc", "00:16:3e:0a:bc:de:00", "0:16:3e:0a:bc:de", "00:16:3e:0a:bc:d",
        "00:16:3e:0a:bc:dg", "00-16-3e-0a-bc-de", " 00:16:3e:0a:bc:de", "00:16:3e:0a:bc:de\n", "+0:16:3e:0a:bc:de",
        "00:16:3e:0a:bc:-1", "00:16:3e:0a:bc:dé", "００:16:3e:0a:bc:de", "00:16:3e::bc:de",
    ])
    func nonsense(_ text: String) { #expect(MACAddress(text: text) == nil) }
}
