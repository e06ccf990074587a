// Headers of right packets found, those of wrong ones left alone, and checksums.

import Testing
import XenWire

@Suite struct HeadersOfPackets {
    @Test(arguments: SamplePacket.all)
    func found(_ sample: SamplePacket) {
        let headers = sample.headers
        #expect(headers.fault == nil && !headers.isFragment)
        #expect(headers.network == sample.network)
        #expect(headers.transport == sample.transport)
        #expect(headers.networkOffset == sample.networkOffset)
        #expect(headers.transportOffset == sample.transportOffset)
        #expect(headers.headerEnd == sample.headerEnd)
        #expect(headers.checksumField == sample.field)
        #expect(headers.transportProtocol == (sample.transport == .tcp ? 6 : 17))
        #expect(headers.etherType == (sample.network == .ipv4 ? 0x0800 : 0x86DD))
    }

    /// However short the packet is cut, nothing beyond the cut is looked at or promised.
    @Test(arguments: SamplePacket.all)
    func cutShort(_ sample: SamplePacket) {
        for count in 0..<sample.bytes.count {
            let headers = PacketHeaders(parsing: TestBytes([UInt8](sample.bytes[..<count])), count: count)
            #expect(headers.headerEnd <= count)
            if count < sample.headerEnd {
                #expect(headers.fault == .truncated)
                #expect(headers.checksumField == nil)
            } else {
                #expect(headers == sample.headers)
            }
        }
    }

    @Test func noIP() {
        let arp = TestBytes(SamplePacket.ethernet + "0806 0001080006040001")
        let headers = PacketHeaders(parsing: arp, count: arp.byteCount)
        #expect(headers.network == .none && headers.transport == .none && headers.fault == nil)
        #expect(headers.etherType == 0x0806 && headers.headerEnd == 14)
    }

    @Test func otherTransports() {
        let icmp = SamplePacket.udp4.packet
        icmp.set8(1, at: 23)
        let headers = PacketHeaders(parsing: icmp, count: icmp.byteCount)
        #expect(headers.network == .ipv4 && headers.transport == .none && headers.fault == nil)
        #expect(headers.transportProtocol == 1 && headers.headerEnd == 34)
    }

    @Test(arguments: [(0x2000, true), (0x0001, true), (0x1FFF, true), (0x4000, false)] as [(UInt16, Bool)])
    func fragmentsOverIPv4(_ field: UInt16, _ isFragment: Bool) {
        let packet = SamplePacket.udp4.packet
        packet.set16(field.byteSwapped, at: 20)
        let headers = PacketHeaders(parsing: packet, count: packet.byteCount)
        #expect(headers.isFragment == isFragment)
        #expect(headers.transport == (isFragment ? .none : .udp))
        #expect(headers.network == .ipv4)
    }

    /// A fragment header in a packet that is whole (RFC 6946) is one extension header more.
    @Test(arguments: [(0x0001, true), (0x0008, true), (0x0000, false), (0x0006, false)] as [(UInt16, Bool)])
    func fragmentsOverIPv6(_ field: UInt16, _ isFragment: Bool) {
        let packet = TestBytes(
            SamplePacket.ethernet + "86dd 60000000 001b2c40" + SamplePacket.addresses6 + "1100 0000 00000001"
                + SamplePacket.ports + "0013 a2d0" + SamplePacket.data
        )
        packet.set16(field.byteSwapped, at: 56)
        let headers = PacketHeaders(parsing: packet, count: packet.byteCount)
        #expect(headers.isFragment == isFragment)
        #expect(headers.transport == (isFragment ? .none : .udp))
        #expect(headers.transportOffset == 62)
    }

    @Test(
        arguments: [
            (14, 0x55, .malformed), (14, 0x44, .malformed), (14, 0x40, .malformed), (17, 19, .malformed),
            (14, 0x4F, .malformed), (46, 0x40, .malformed), (46, 0x00, .malformed), (46, 0xF0, .truncated),
        ] as [(Int, UInt8, PacketHeaderFault)]
    )
    func lengthsAndVersionsThatAreWrong(_ place: Int, _ value: UInt8, _ fault: PacketHeaderFault) {
        let packet = TestBytes([UInt8](SamplePacket.tcp4.bytes[..<60]))
        packet.set16(51 << 8, at: 16)
        packet.set8(value, at: place)
        let headers = PacketHeaders(parsing: packet, count: packet.byteCount)
        #expect(headers.fault == fault)
        #expect(headers.checksumField == nil)
    }

    @Test func moreTagsThanAreFollowed() {
        let packet = TestBytes(SamplePacket.ethernet + "8100 0001 8100 0002 8100 0003 0800")
        #expect(PacketHeaders(parsing: packet, count: packet.byteCount).fault == .tooMany)
    }

    @Test(arguments: [(8, nil), (9, .tooMany), (100, .tooMany)] as [(Int, PacketHeaderFault?)])
    func extensionHeadersWithoutEnd(_ count: Int, _ fault: PacketHeaderFault?) {
        let more = String(repeating: "3c00010400000000", count: count - 1)
        let packet = TestBytes(
            SamplePacket.ethernet + "86dd 60000000 00003c40" + SamplePacket.addresses6 + more + "1100010400000000"
                + SamplePacket.ports + "0008 0000"
        )
        let headers = PacketHeaders(parsing: packet, count: packet.byteCount)
        #expect(headers.fault == fault)
        #expect(headers.transport == (fault == nil ? .udp : .none))
    }

    /// Any bytes: nothing traps, and no offset lies outside.
    @Test func random() {
        var generator = SeededGenerator(seed: 0x6865_6164)
        for round in 0..<20000 {
            let sample = SamplePacket.all[round % SamplePacket.all.count]
            let packet = sample.packet
            for _ in 0..<Int.random(in: 1...6, using: &generator) {
                let place = Int.random(in: 12..<packet.byteCount, using: &generator)
                packet.set8(UInt8.random(in: 0...255, using: &generator), at: place)
            }
            let count = Int.random(in: 0...packet.byteCount, using: &generator)
            let headers = PacketHeaders(parsing: packet, count: count)
            #expect(headers.headerEnd <= count && headers.transportOffset <= headers.headerEnd)
            if let field = headers.checksumField { #expect(field + 2 <= count) }
            InternetChecksum.fill(packet, headers: headers, count: count)
            InternetChecksum.makeBlank(packet, headers: headers, count: count)
            _ = InternetChecksum.isRight(packet, headers: headers, count: count)
        }
    }
}

@Suite struct ChecksumsOfPackets {
    @Test(arguments: SamplePacket.all)
    func rightOnesAreRight(_ sample: SamplePacket) {
        let packet = sample.packet
        #expect(InternetChecksum.isRight(packet, headers: sample.headers, count: packet.byteCount))
        packet.set8(packet.u8(packet.byteCount - 1) ^ 1, at: packet.byteCount - 1)
        #expect(!InternetChecksum.isRight(packet, headers: sample.headers, count: packet.byteCount))
    }

    @Test(arguments: SamplePacket.all)
    func filled(_ sample: SamplePacket) {
        let packet = sample.packet
        packet.set16(0xDEAD, at: sample.field)
        InternetChecksum.fill(packet, headers: sample.headers, count: packet.byteCount)
        #expect(packet.u16(sample.field).byteSwapped == sample.checksum)
        #expect(packet.bytes == sample.bytes)
    }

    /// Padding behind a short frame is none of TCP's business.
    @Test(arguments: SamplePacket.all)
    func filledBeforePadding(_ sample: SamplePacket) {
        let packet = TestBytes(sample.bytes + [0xAA, 0xBB, 0xCC])
        packet.set16(0, at: sample.field)
        InternetChecksum.fill(packet, headers: sample.headers, count: packet.byteCount)
        #expect(packet.bytes == sample.bytes + [0xAA, 0xBB, 0xCC])
    }

    @Test(arguments: SamplePacket.all)
    func madeBlankAndCompleted(_ sample: SamplePacket) {
        let packet = sample.packet
        InternetChecksum.makeBlank(packet, headers: sample.headers, count: packet.byteCount)
        #expect(packet.u16(sample.field).byteSwapped == sample.pseudo)
        InternetChecksum.complete(
            packet,
            start: sample.transportOffset,
            field: sample.field,
            count: packet.byteCount
        )
        #expect(packet.bytes == sample.bytes)
    }

    /// RFC 768: no checksum is 0, and a checksum never is.
    @Test func udpWithoutAChecksum() {
        let packet = SamplePacket.udp4.packet
        packet.set16(0, at: SamplePacket.udp4.field)
        #expect(InternetChecksum.isRight(packet, headers: SamplePacket.udp4.headers, count: packet.byteCount))
    }

    /// RFC 1071, section 3, and all lengths against a plain sum.
    @Test func sums() {
        var checksum = InternetChecksum()
        checksum.add(TestBytes("0001f203f4f5f6f7"), at: 0, count: 8)
        #expect(checksum.sum.byteSwapped == 0xDDF2)
        var generator = SeededGenerator(seed: 71)
        for count in 0..<200 {
            let bytes = (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }
            var plain = 0
            for (place, byte) in bytes.enumerated() { plain += Int(byte) << (place % 2 == 0 ? 8 : 0) }
            while plain > 0xFFFF { plain = plain & 0xFFFF + plain >> 16 }
            var checksum = InternetChecksum()
            checksum.add(TestBytes(bytes), at: 0, count: count)
            #expect(Int(checksum.sum.byteSwapped) == plain)
        }
    }
}
