// Golden bytes of usbif.h, written down from the header's own pictures.

import Testing
import XenWire

@Suite struct USBGoldenBytes {
    static func bytes(of words: WireWords, _ count: Int) -> [UInt8] {
        let all = TestBytes(count: 16)
        all.set64(words.low, at: 0)
        all.set64(words.high, at: 8)
        return [UInt8](all.bytes[..<count])
    }

    static let port = USBPort(5)!

    /// Sixteen segments, the first two of them as given and the rest 0.
    static func slot(_ header: String, _ segments: String = "") -> TestBytes {
        let bytes = TestBytes(header + segments).bytes
        return TestBytes(bytes + [UInt8](repeating: 0, count: USBWire.urbStride - bytes.count))
    }

    /// The layout is the same for 32-bit and 64-bit frontends: sizes, ring places and these bytes were compared with what
    /// `gcc -m32` and `gcc -m64` make of the header.
    @Test func sizes() {
        #expect(USBWire.urbStride == 20 + 16 * 8)
        #expect((4096 - 64) / USBWire.urbStride == 27 && USBWire.urbSlots == 16)
        #expect((4096 - 64) / USBWire.connectionStride == 1008 && USBWire.connectionSlots == 512)
    }

    @Test func bulk() throws {
        let slot = USBGoldenBytes.slot(
            "0700 0200 850701C0 0100 0010 0000000000000000",
            "DDCCBBAA 0008 0008 44332211 0000 0008"
        )
        let raw = RawURB(slot)
        #expect(raw.id == 7 && raw.segmentCount == 2 && raw.flags == 1 && raw.byteCount == 4096)
        #expect(raw.pipe == USBPipe(USBGoldenBytes.port, .bulk, device: 7, endpoint: 2, .in))
        #expect(raw.segment(0) == URBSegment(GrantReference(0xAABB_CCDD), offset: 2048, length: 2048))
        #expect(raw.segment(1) == URBSegment(GrantReference(0x1122_3344), offset: 0, length: 2048))
        let request = try URBRequest(validating: raw, portCount: 8)
        #expect(request.kind == .bulk && request.shortNotOK && request.byteCount == 4096 && request.segmentCount == 2)
        #expect(request.port == USBGoldenBytes.port && request.direction == .in && request.endpoint.rawValue == 0x82)
        #expect(request.segment(1, in: slot) == raw.segment(1))
        let written = TestBytes(count: USBWire.urbStride, filledWith: 0xEE)
        RawURB(written).encode(
            id: 7,
            raw.pipe,
            .bulk,
            segments: [raw.segment(0), raw.segment(1)],
            flags: 1
        )
        #expect(written.bytes == slot.bytes)
    }

    @Test func control() throws {
        let setup = SetupPacket(0x80, 6, value: 0x0100, index: 0, length: 18)
        let slot = USBGoldenBytes.slot("0100 0100 81000080 0000 1200 8006000100001200", "09000000 E00F 1200")
        let request = try URBRequest(validating: RawURB(slot), portCount: 1)
        #expect(request.kind == .control(setup))
        #expect(request.pipe == USBPipe(USBPort(1)!, .control, device: 0, .in))
        #expect(request.transferByteCount == 18 && request.byteCount == 18 && !request.shortNotOK)
        #expect(request.endpoint.number == 0)
        let written = TestBytes(count: USBWire.urbStride)
        RawURB(written).encode(
            id: 1,
            request.pipe,
            .control(setup),
            segments: [URBSegment(GrantReference(9), offset: 0xFE0, length: 18)]
        )
        #expect(written.bytes == slot.bytes)
    }

    @Test func interrupt() throws {
        let slot = USBGoldenBytes.slot("0200 0100 9F830040 0000 0800 0A00000000000000", "01000000 0000 0800")
        let request = try URBRequest(validating: RawURB(slot), portCount: 31)
        #expect(request.kind == .interrupt(interval: 10))
        #expect(request.pipe == USBPipe(USBPort(31)!, .interrupt, device: 3, endpoint: 1, .in))
        #expect(request.transferByteCount == 8)
    }

    @Test func isochronous() throws {
        let slot = USBGoldenBytes.slot(
            "0F00 0200 017F0400 0000 0018 0100 2211 0400 0100",
            "01000000 0000 0010 02000000 0000 0008 03000000 B80F 4000"
        )
        let request = try URBRequest(validating: RawURB(slot), portCount: 1)
        #expect(request.kind == .isochronous(interval: 1, startFrame: 0x1122, packetCount: 4))
        #expect(request.pipe == USBPipe(USBPort(1)!, .isochronous, device: 127, endpoint: 8, .out))
        #expect(request.byteCount == 6144 && request.segmentCount == 2 && request.frameSegmentCount == 1)
        #expect(request.frameByteCount == 64)
        #expect(
            request.frameSegment(0, in: slot) == URBSegment(GrantReference(3), offset: 0xFB8, length: 64)
        )
        let written = TestBytes(count: USBWire.urbStride)
        RawURB(written).encode(
            id: 15,
            request.pipe,
            .isochronous(interval: 1, startFrame: 0x1122, packets: 4, frameSegments: 1),
            segments: (0..<3).map { RawURB(slot).segment($0) }
        )
        #expect(written.bytes == slot.bytes)
    }

    @Test func frameDescriptors() throws {
        let slot = USBGoldenBytes.slot("0000 0100 81020100 0000 2C01 0100 0000 0200 0100", "01000000 0000 2C01")
        slot.set64(0x0020_0000_0000_0002, at: 28)
        let request = try URBRequest(validating: RawURB(slot), portCount: 1)
        let bytes = TestBytes(
            "00000000 C8000000 00000000 EEFFFFFF  C8000000 64000000 00000000 EEFFFFFF"
        )
        let packets = try IsochronousPackets(validating: bytes, of: request)
        #expect(packets.count == 2)
        #expect(packets.packet(0).offset == 0 && packets.packet(0).byteCount == 200)
        #expect(packets.packet(1).offset == 200 && packets.packet(1).byteCount == 100)
        #expect(packets.outcome(1).status == .missed)
        packets.finish(0, byteCount: 192, .okay)
        packets.finish(1, byteCount: 0, .protocolError)
        #expect(
            bytes.bytes
                == TestBytes("00000000 C8000000 C0000000 00000000  C8000000 64000000 00000000 B9FFFFFF").bytes
        )
        #expect(packets.outcome(0) == (192, .okay))
    }

    /// As xen-hcd sends it: the old request's bytes with another id, pipe and `unlink_id`.
    @Test func unlink() throws {
        let slot = USBGoldenBytes.slot("0300 FFFF A50701C0 FFFF FFFF 0700 EEEEEEEEEEEE", "01000000 FFFF FFFF")
        let request = try URBRequest(validating: RawURB(slot), portCount: 5)
        #expect(request.kind == .unlink(7) && request.id == 3 && request.segmentCount == 0 && request.byteCount == 0)
        #expect(request.pipe == USBPipe(USBGoldenBytes.port, .bulk, device: 7, endpoint: 2, .in, isUnlink: true))
    }

    @Test(
        arguments: [
            (URBResponse(id: 7, .okay, byteCount: 4096), "0700 0000 00000000 00100000 00000000"),
            (URBResponse(id: 0x1234, .stall), "3412 0000 E0FFFFFF 00000000 00000000"),
            (
                URBResponse(id: 1, .okay, byteCount: 0x1122_3344, startFrame: 0x5566, errorCount: 3),
                "0100 6655 00000000 44332211 03000000"
            ),
            (URBResponse(id: 2, .noDevice), "0200 0000 EDFFFFFF 00000000 00000000"),
            (URBResponse(id: 2, .invalid), "0200 0000 EAFFFFFF 00000000 00000000"),
            (URBResponse(id: 2, .ioError), "0200 0000 B9FFFFFF 00000000 00000000"),
            (URBResponse(id: 2, .babble), "0200 0000 B5FFFFFF 00000000 00000000"),
            (URBResponse(id: 2, .shutdown), "0200 0000 94FFFFFF 00000000 00000000"),
        ]
    )
    func response(_ response: URBResponse, _ text: String) {
        let slot = TestBytes(text)
        #expect(USBGoldenBytes.bytes(of: response.words, 16) == slot.bytes)
        #expect(URBResponse(decoding: slot) == response)
    }

    @Test(
        arguments: [
            (1, .high, "3412 01 03"), (31, .none, "3412 1F 00"), (2, .low, "3412 02 01"), (3, .full, "3412 03 02"),
        ] as [(Int, USBIFSpeed, String)]
    )
    func connectionEvents(_ number: Int, _ speed: USBIFSpeed, _ text: String) throws {
        let slot = TestBytes(text)
        let port = try #require(USBPort(number))
        #expect(USBGoldenBytes.bytes(of: ConnectionResponse.words(id: 0x1234, port, speed), 4) == slot.bytes)
        let response = ConnectionResponse(decoding: slot)
        #expect(response.id == 0x1234 && response.port == port && response.speed == speed.rawValue)
        #expect(ConnectionRequest(decoding: slot) == ConnectionRequest(id: 0x1234))
        #expect(USBGoldenBytes.bytes(of: ConnectionRequest(id: 0x1234).words, 2) == [0x34, 0x12])
    }
}

@Suite struct USBWords {
    @Test(arguments: [-1, 0, 32, 255, 256, 65537]) func noPorts(_ number: Int) { #expect(USBPort(number) == nil) }

    @Test func controllers() {
        #expect(USBControllerShape(version: "2", portCount: "8") == USBControllerShape(.usb20, portCount: 8))
        #expect(USBControllerShape(version: "1", portCount: "31")?.ports.count == 31)
        #expect(USBControllerShape(version: "1", portCount: "1")?.ports == [USBPort(1)!])
        #expect(USBKeys.port(USBPort(12)!) == "port/12")
    }

    @Test(
        arguments: [
            (nil, "8"), ("2", nil), ("0", "8"), ("3", "8"), ("2", "0"), ("2", "32"), ("2", "-1"), ("2.0", "8"),
            ("", ""),
            ("2", "99999999999999999999"), ("258", "8"), (" 2", "8"), ("2", "8 "),
        ] as [(String?, String?)]
    )
    func nonsense(_ version: String?, _ portCount: String?) {
        #expect(USBControllerShape(version: version, portCount: portCount) == nil)
    }

    /// Every errno has an answer, and it is one that xen-hcd's drivers understand or stand in for.
    @Test func statuses() {
        let known: Set<URBStatus> = [.okay, .noDevice, .invalid, .stall, .ioError, .babble, .shutdown, .unlinked]
        for errno in -200...0 as ClosedRange<Int32> { #expect(known.contains(URBStatus(errno: errno))) }
        #expect(
            URBStatus(errno: -121) == .okay && URBStatus(errno: -62) == .ioError && URBStatus(errno: -84) == .ioError
        )
        #expect(URBStatus(errno: -113) == .shutdown && URBStatus(errno: -90) == .invalid)
        #expect(URBStatus(errno: -104) == .unlinked)
    }
}

@Suite struct USBControlRequests {
    @Test(
        arguments: [
            (SetupPacket(0x00, 5, value: 7), .setAddress(7)), (SetupPacket(0x00, 5, value: 128), .refused(.malformed)),
            (SetupPacket(0x00, 9, value: 1), .setConfiguration(1)),
            (SetupPacket(0x00, 9, value: 0x101), .refused(.malformed)),
            (SetupPacket(0x01, 11, value: 2, index: 3), .setInterface(3, alternate: 2)),
            (SetupPacket(0x01, 11, value: 256, index: 3), .refused(.malformed)),
            (SetupPacket(0x01, 11, value: 2, index: 0xFFFF), .refused(.malformed)),
            (SetupPacket(0x02, 1, value: 0, index: 0x81), .clearHalt(USBEndpointAddress(1, .in))),
            (SetupPacket(0x02, 1, value: 0, index: 0x0F), .clearHalt(USBEndpointAddress(15, .out))),
            (SetupPacket(0x02, 1, value: 0, index: 0x181), .refused(.malformed)),
            (SetupPacket(0x02, 1, value: 1, index: 0x81), .forward), (SetupPacket(0x02, 3, index: 0x81), .forward),
            (
                SetupPacket(0x80, 6, value: 0x0203, index: 0, length: 9),
                .getDescriptor(.configuration, index: 3, language: 0)
            ),
            (
                SetupPacket(0x80, 6, value: 0x0302, index: 0x409, length: 255),
                .getDescriptor(.string, index: 2, language: 0x409)
            ),
            (SetupPacket(0x81, 6, value: 0x2200, length: 64), .forward), (SetupPacket(0x80, 8, length: 1), .forward),
            (SetupPacket(0x00, 3, value: 2, index: 0x100), .refused(.testMode)),
            (SetupPacket(0x00, 3, value: 1), .forward),
            (SetupPacket(0x00, 3, value: 48), .refused(.superSpeed)),
            (SetupPacket(0x00, 1, value: 50), .refused(.superSpeed)),
            (SetupPacket(0x00, 48, length: 6), .refused(.superSpeed)), (SetupPacket(0x00, 7), .refused(.setDescriptor)),
            (SetupPacket(0x21, 10), .forward), (SetupPacket(0xC0, 0xFF, length: 64), .forward),
            (SetupPacket(0x20, 5, value: 7), .forward), (SetupPacket(0x40, 9, value: 1), .forward),
        ] as [(SetupPacket, USBControlRequest)]
    )
    func classified(_ setup: SetupPacket, _ expected: USBControlRequest) {
        #expect(USBControlRequest(setup) == expected)
        #expect(SetupPacket(word: setup.word) == setup)
    }
}
