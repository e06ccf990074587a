// From the transmit ring's words to a TAP device's, and from a TAP device's to the receive ring's.

import Testing
import XenWire

private let segments4 = Segmentation(kind: .tcpv4, size: 4)!
private let segments6 = Segmentation(kind: .tcpv6, size: 4)!
private let all: ReceiveFeatures = [.scatterGather, .checksumV4, .checksumV6, .segmentationV4, .segmentationV6]

@Suite struct VirtioNetHeaders {
    @Test func bytes() {
        var header = VirtioNetHeader()
        header.flags = .needsChecksum
        header.segmentKind = .tcpv6
        header.headerLength = 0x0102
        header.segmentSize = 0x0304
        header.checksumStart = 0x0506
        header.checksumOffset = 0x0708
        let slot = TestBytes(count: 10, filledWith: 0xAA)
        header.encode(into: slot)
        #expect(slot.bytes == TestBytes("01 04 0201 0403 0605 0807").bytes)
        #expect(VirtioNetHeader(decoding: slot) == header)
    }
}

@Suite struct TransmitOffloads {
    private func offload(
        _ sample: SamplePacket,
        _ flags: TransmitFlags,
        _ segmentation: Segmentation? = nil
    ) throws(OffloadFault) -> TransmitOffload {
        try TransmitOffload(
            flags: flags,
            segmentation: segmentation,
            headers: sample.headers,
            byteCount: sample.bytes.count
        )
    }

    @Test(arguments: SamplePacket.all)
    func plain(_ sample: SamplePacket) throws {
        let plain = try offload(sample, []).header
        #expect(plain.flags == [] && plain.segmentKind == .none && !plain.needsHeaders)
        #expect(try offload(sample, .dataValidated).header.flags == .dataValid)
    }

    @Test(arguments: SamplePacket.all)
    func blank(_ sample: SamplePacket) throws {
        let offload = try offload(sample, [.checksumBlank, .dataValidated])
        #expect(offload.header.flags == .needsChecksum)
        #expect(Int(offload.header.checksumStart) == sample.transportOffset)
        #expect(Int(offload.header.checksumOffset) == sample.field - sample.transportOffset)
        #expect(!offload.makesBlank)
    }

    @Test func segmented() throws {
        let four = try offload(SamplePacket.tcp4, .checksumBlank, segments4)
        #expect(four.header.segmentKind == .tcpv4 && four.header.segmentSize == 4 && !four.makesBlank)
        let six = try offload(SamplePacket.tcp6, .checksumBlank, segments6)
        #expect(six.header.segmentKind == .tcpv6 && six.header.segmentSize == 4)
    }

    /// Some frontends forget to say that the checksum is blank: it is made so.
    @Test func segmentedWithoutABlankChecksum() throws {
        let offload = try offload(SamplePacket.tcp4, .dataValidated, segments4)
        #expect(offload.makesBlank)
        #expect(offload.header.flags == .needsChecksum)
    }

    @Test func oneSegmentIsAPacket() throws {
        let whole = try offload(SamplePacket.tcp4, .checksumBlank, Segmentation(kind: .tcpv4, size: 11))
        #expect(whole.header.segmentKind == .none && whole.header.segmentSize == 0)
        #expect(whole.header.flags == .needsChecksum)
    }

    /// XSA-423: the headers, whole, are in what is put into one piece, which is never more than the packet.
    @Test(arguments: SamplePacket.all)
    func xsa423HeadersAreNeverInPieces(_ sample: SamplePacket) throws {
        for count in [sample.bytes.count, 4097, 65535] {
            let bytes = sample.bytes + [UInt8](repeating: 0, count: count - sample.bytes.count)
            let headers = PacketHeaders(parsing: TestBytes(bytes), count: count)
            for flags in [[], .checksumBlank] as [TransmitFlags] {
                let header = try TransmitOffload(
                    flags: flags,
                    segmentation: nil,
                    headers: headers,
                    byteCount: count
                ).header
                #expect(Int(header.headerLength) >= headers.headerEnd && Int(header.headerLength) <= count)
            }
        }
    }

    @Test func blankChecksumsOfNothing() {
        let arp = TestBytes(SamplePacket.ethernet + "0806 0001080006040001")
        let short = [UInt8](SamplePacket.tcp4.bytes[..<50])
        for packet in [arp, TestBytes(short)] {
            let headers = PacketHeaders(parsing: packet, count: packet.byteCount)
            for segmentation in [nil, segments4] {
                #expect(throws: OffloadFault.nothingToSum) {
                    _ = try TransmitOffload(
                        flags: .checksumBlank,
                        segmentation: segmentation,
                        headers: headers,
                        byteCount: packet.byteCount
                    )
                }
            }
        }
    }

    @Test func segmentsOfAnotherProtocol() {
        #expect(throws: OffloadFault.otherProtocol) { _ = try offload(SamplePacket.tcp4, [], segments6) }
        #expect(throws: OffloadFault.otherProtocol) { _ = try offload(SamplePacket.tcp6, [], segments4) }
        #expect(throws: OffloadFault.otherProtocol) { _ = try offload(SamplePacket.udp4, [], segments4) }
    }
}

@Suite struct ReceiveOffloads {
    private func header(_ sample: SamplePacket, _ kind: UInt8 = 0, _ size: UInt16 = 0) -> VirtioNetHeader {
        var header = VirtioNetHeader()
        header.flags = .needsChecksum
        header.checksumStart = UInt16(sample.transportOffset)
        header.checksumOffset = UInt16(sample.field - sample.transportOffset)
        header.segmentKind = VirtioNetHeader.Kind(rawValue: kind)
        header.segmentSize = size
        return header
    }

    private func offload(
        _ sample: SamplePacket,
        _ header: VirtioNetHeader,
        _ features: ReceiveFeatures = all
    ) throws(OffloadFault) -> ReceiveOffload {
        let usable = features.usable
        return try ReceiveOffload(
            header: header,
            headers: sample.headers,
            byteCount: sample.bytes.count,
            features: usable
        )
    }

    @Test func plain() throws {
        let plain = try offload(SamplePacket.tcp4, VirtioNetHeader())
        #expect(plain.flags == [] && plain.segmentation == nil && plain.blank == nil)
        var valid = VirtioNetHeader()
        valid.flags = .dataValid
        #expect(try offload(SamplePacket.tcp4, valid).flags == .dataValidated)
    }

    /// Blank for a frontend that takes it, to be completed for one that does not.
    @Test(arguments: SamplePacket.all)
    func blank(_ sample: SamplePacket) throws {
        let feature: ReceiveFeatures = sample.network == .ipv4 ? .checksumV4 : .checksumV6
        let taken = try offload(sample, header(sample), feature)
        // Behind a tag Linux's frontend finds no checksum.
        #expect(taken.flags == (sample.headers.isTagged ? .dataValidated : [.checksumBlank, .dataValidated]))
        #expect((taken.blank == nil) == !sample.headers.isTagged)
        let completed = try offload(sample, header(sample), all.subtracting(feature))
        #expect(completed.flags == .dataValidated)
        #expect(completed.blank?.start == sample.transportOffset && completed.blank?.field == sample.field)
    }

    /// The frontend would look in the wrong place.
    @Test func aBlankChecksumOfWhatTheFrontendCannotFind() throws {
        var inner = header(SamplePacket.udp4)
        inner.checksumStart += 2
        let offload = try offload(SamplePacket.udp4, inner)
        #expect(offload.flags == [])
        #expect(offload.blank?.start == 36 && offload.blank?.field == 42)
    }

    @Test func segmented() throws {
        #expect(try offload(SamplePacket.tcp4, header(SamplePacket.tcp4, 1, 4)).segmentation == segments4)
        #expect(try offload(SamplePacket.tcp6, header(SamplePacket.tcp6, 4, 4)).segmentation == segments6)
        let congested = try offload(SamplePacket.tcp4, header(SamplePacket.tcp4, 0x81, 4))
        #expect(congested.segmentation == segments4)
        #expect(congested.flags == [.checksumBlank, .dataValidated])
    }

    @Test(
        arguments: [
            ([.scatterGather, .checksumV4, .segmentationV6], .notNegotiated),
            ([.scatterGather, .segmentationV4], .notNegotiated), ([.checksumV4, .segmentationV4], .notNegotiated),
        ] as [(ReceiveFeatures, OffloadFault)]
    )
    func segmentsThatTheFrontendDoesNotTake(_ features: ReceiveFeatures, _ fault: OffloadFault) {
        #expect(throws: fault) { _ = try offload(SamplePacket.tcp4, header(SamplePacket.tcp4, 1, 4), features) }
    }

    @Test(arguments: [(1, 0), (2, 4), (3, 4), (5, 4), (0x80, 4), (0xFF, 4)] as [(UInt8, UInt16)])
    func segmentsOfNoKnownKind(_ kind: UInt8, _ size: UInt16) {
        #expect(throws: OffloadFault.unknownSegmentation(kind)) {
            _ = try offload(SamplePacket.tcp4, header(SamplePacket.tcp4, kind, size))
        }
    }

    @Test func contradictions() {
        #expect(throws: OffloadFault.otherProtocol) {
            _ = try offload(SamplePacket.tcp4, header(SamplePacket.tcp4, 4, 4))
        }
        var unsummed = header(SamplePacket.tcp4, 1, 4)
        unsummed.flags = []
        #expect(throws: OffloadFault.contradiction) { _ = try offload(SamplePacket.tcp4, unsummed) }
        var elsewhere = header(SamplePacket.tcp4, 1, 4)
        elsewhere.checksumStart -= 2
        #expect(throws: OffloadFault.contradiction) { _ = try offload(SamplePacket.tcp4, elsewhere) }
        for (start, offset) in [(64, 0), (0, 64), (65535, 65535), (50, 14)] as [(UInt16, UInt16)] {
            var outside = header(SamplePacket.tcp4)
            outside.checksumStart = start
            outside.checksumOffset = offset
            #expect(throws: OffloadFault.contradiction) { _ = try offload(SamplePacket.tcp4, outside) }
        }
    }
}
