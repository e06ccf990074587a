// URBs that are wrong, and URBs that are nothing but random.

import Testing
import XenWire

private let whole = URBSegment(GrantReference(1), offset: 0, length: 4096)
private let port = USBPort(1)!

/// What is wrong with a request, if anything.
private func fault(_ slot: TestBytes, portCount: Int = 8) -> URBFault? {
    do throws(URBFault) {
        _ = try URBRequest(validating: RawURB(slot), portCount: portCount)
        return nil
    } catch { return error }
}

private func slot(
    _ pipe: USBPipe,
    _ specifics: RawURBSpecifics,
    _ segments: [URBSegment] = [],
    segmentCount: UInt16? = nil,
    byteCount: UInt16? = nil,
    flags: UInt16 = 0
) -> TestBytes {
    let bytes = TestBytes(count: USBWire.urbStride)
    RawURB(bytes).encode(
        id: 1,
        pipe,
        specifics,
        segments: segments,
        segmentCount: segmentCount,
        byteCount: byteCount,
        flags: flags
    )
    return bytes
}

private let bulk = USBPipe(port, .bulk, device: 1, endpoint: 2, .in)

@Suite struct USBHostileValues {
    @Test func ports() {
        let none = USBPipe(rawValue: bulk.rawValue & ~0x1F)
        #expect(fault(slot(none, .bulk)) == .port(0, count: 8))
        // 32 has no room in the pipe: it is port 0 of an unlink.
        let beyond = USBPipe(rawValue: none.rawValue | 32)
        #expect(fault(slot(beyond, .unlink(0))) == .port(0, count: 8))
        #expect(fault(slot(USBPipe(USBPort(9)!, .bulk, device: 1, endpoint: 2, .in), .bulk)) == .port(9, count: 8))
        #expect(fault(slot(bulk, .bulk), portCount: 1) == nil)
        #expect(URBFault.port(9, count: 8).status == .noDevice)
    }

    @Test(arguments: [6] + Array(19...29)) func undefinedBitsOfPipes(_ bit: Int) {
        let pipe = USBPipe(rawValue: bulk.rawValue | 1 << UInt32(bit))
        #expect(fault(slot(pipe, .bulk)) == .undefinedPipeBits(1 << UInt32(bit)))
        #expect(fault(slot(USBPipe(rawValue: pipe.rawValue | 32), .unlink(0))) == .undefinedPipeBits(1 << UInt32(bit)))
    }

    @Test(arguments: [0, 1, 2, 3, 0x8000, 0xFFFF] as [UInt16]) func flags(_ flags: UInt16) {
        #expect(fault(slot(bulk, .bulk, flags: flags)) == (flags < 2 ? nil : .undefinedFlags(flags & ~1)))
    }

    @Test(arguments: USBTransferType.allCases, [USBDirection.in, .out])
    func endpointZeroIsForControl(_ type: USBTransferType, _ direction: USBDirection) {
        let fault = fault(slot(USBPipe(port, type, device: 1, endpoint: 0, direction), .bulk))
        #expect(fault == (type == .control ? nil : .typeOfEndpointZero(type)))
    }

    @Test func controlOfAnotherEndpointIsTheDevicesAffair() {
        let pipe = USBPipe(port, .control, device: 1, endpoint: 3, .out)
        #expect(fault(slot(pipe, .control(SetupPacket(0x21, 9)))) == nil)
    }

    @Test(arguments: [17, 18, 255, 256, 65535] as [UInt16]) func segmentCounts(_ count: UInt16) {
        let sixteen = [URBSegment](repeating: whole, count: 16)
        #expect(
            fault(slot(bulk, .bulk, sixteen, segmentCount: count)) == .segmentCount(buffer: Int(count), frames: 0)
        )
        let isochronous = USBPipe(port, .isochronous, device: 1, endpoint: 2, .in)
        let specifics = RawURBSpecifics.isochronous(
            interval: 1,
            startFrame: 0,
            packets: 1,
            frameSegments: count
        )
        #expect(
            fault(slot(isochronous, specifics, [whole], segmentCount: 1))
                == .segmentCount(buffer: 1, frames: Int(count))
        )
        #expect(URBFault.segmentCount(buffer: 17, frames: 0).status == .invalid)
    }

    /// What usb-storage's largest buffers look like: 65536 bytes, of which `buffer_length` says 0.
    @Test func aBufferOfSixteenWholePages() throws {
        let bytes = slot(bulk, .bulk, [URBSegment](repeating: whole, count: 16), byteCount: 0)
        let request = try URBRequest(validating: RawURB(bytes), portCount: 1)
        #expect(request.byteCount == USBWire.maxBytes && request.transferByteCount == 65536)
    }

    @Test(
        arguments: [(0, 0), (0, 4097), (1, 4096), (4095, 2), (4096, 1), (65535, 65535), (65535, 1), (100, 0)]
            as [(UInt16, UInt16)]
    )
    func segmentBounds(_ offset: UInt16, _ length: UInt16) {
        let wrong = URBSegment(GrantReference(2), offset: offset, length: length)
        #expect(
            fault(slot(bulk, .bulk, [whole, wrong])) == .segmentBounds(index: 1, offset: offset, length: length)
        )
    }

    @Test(arguments: [0, 1, 4095, 4097, 8192, 65535] as [UInt16]) func byteCounts(_ count: UInt16) {
        #expect(fault(slot(bulk, .bulk, [whole], byteCount: count)) == .byteCount(count, segments: 4096))
        #expect(
            fault(slot(bulk, .bulk, [], byteCount: count)) == (count == 0 ? nil : .byteCount(count, segments: 0))
        )
    }

    @Test func setupPackets() {
        let pipe = USBPipe(port, .control, device: 1, .in)
        let page = [URBSegment(GrantReference(1), offset: 0, length: 64)]
        #expect(fault(slot(pipe, .control(SetupPacket(0x80, 6, length: 64)), page)) == nil)
        #expect(fault(slot(pipe, .control(SetupPacket(0x80, 6, length: 18)), page)) == nil)
        #expect(
            fault(slot(pipe, .control(SetupPacket(0x80, 6, length: 65)), page)) == .setupLength(65, buffer: 64)
        )
        #expect(
            fault(slot(pipe, .control(SetupPacket(0x80, 6, length: .max)), [])) == .setupLength(.max, buffer: 0)
        )
        #expect(fault(slot(pipe, .control(SetupPacket(0x00, 7, length: 64)), page)) == .setupDirection)
        let out = USBPipe(port, .control, device: 1, .out)
        #expect(fault(slot(out, .control(SetupPacket(0x80, 6, length: 64)), page)) == .setupDirection)
        #expect(fault(slot(out, .control(SetupPacket(0x80, 6, length: 0)), [])) == nil)
    }
}

@Suite struct USBHostilePackets {
    static let pipe = USBPipe(port, .isochronous, device: 1, endpoint: 2, .in)

    private func isochronous(_ packets: UInt16, _ segments: [URBSegment], frames: UInt16) -> TestBytes {
        slot(
            USBHostilePackets.pipe,
            .isochronous(interval: 1, startFrame: 0, packets: packets, frameSegments: frames),
            segments
        )
    }

    @Test(arguments: [0, 1025, 65535] as [UInt16]) func packetCounts(_ count: UInt16) {
        #expect(fault(isochronous(count, [whole, whole], frames: 1)) == .packetCount(Int(count)))
    }

    @Test func descriptorsMustHoldAllPackets() {
        let frame = { URBSegment(GrantReference(2), offset: 0, length: $0) }
        #expect(fault(isochronous(4, [whole, frame(64)], frames: 1)) == nil)
        #expect(fault(isochronous(4, [whole, frame(63)], frames: 1)) == .frameBytes(63, packets: 4))
        #expect(fault(isochronous(4, [whole, frame(80)], frames: 1)) == .frameBytes(80, packets: 4))
        #expect(fault(isochronous(4, [whole], frames: 0)) == .frameBytes(0, packets: 4))
        #expect(fault(isochronous(4, [whole, frame(24), frame(40)], frames: 2)) == nil)
        #expect(
            fault(isochronous(4, [whole, frame(0)], frames: 1)) == .segmentBounds(index: 1, offset: 0, length: 0)
        )
    }

    /// xen-hcd grants no descriptors of an URB without data.
    @Test func emptyPackets() throws {
        let request = try URBRequest(validating: RawURB(isochronous(8, [], frames: 0)), portCount: 1)
        #expect(request.kind == .isochronous(interval: 1, startFrame: 0, packetCount: 8))
        #expect(request.frameByteCount == 0 && request.byteCount == 0)
        #expect(try IsochronousPackets(validating: TestBytes(count: 0), of: request).count == 0)
    }

    @Test(
        arguments: [
            ([(0, 100), (100, 100)], nil), ([(0, 100), (150, 50)], nil), ([(0, 0), (0, 0)], nil),
            ([(200, 0), (200, 0)], nil), ([(0, 100), (99, 100)], .packetOverlap(index: 1)),
            ([(100, 100), (0, 100)], .packetOverlap(index: 1)), ([(0, 100), (0, 100)], .packetOverlap(index: 1)),
            ([(0, 100), (101, 100)], .packetBounds(index: 1, offset: 101, length: 100)),
            ([(201, 0), (0, 0)], .packetBounds(index: 0, offset: 201, length: 0)),
            ([(0, 100), (.max, 2)], .packetBounds(index: 1, offset: .max, length: 2)),
            ([(0, .max), (0, 0)], .packetBounds(index: 0, offset: 0, length: .max)),
            ([(.max, .max), (0, 0)], .packetBounds(index: 0, offset: .max, length: .max)),
        ] as [([(UInt32, UInt32)], URBFault?)]
    )
    func places(_ packets: [(UInt32, UInt32)], _ expected: URBFault?) throws {
        let segments = [
            URBSegment(GrantReference(1), offset: 0, length: 200), URBSegment(GrantReference(2), offset: 0, length: 32),
        ]
        let request = try URBRequest(validating: RawURB(isochronous(2, segments, frames: 1)), portCount: 1)
        let bytes = TestBytes(count: 32)
        for (index, packet) in packets.enumerated() {
            bytes.set32(packet.0, at: index * 16)
            bytes.set32(packet.1, at: index * 16 + 4)
        }
        do throws(URBFault) {
            _ = try IsochronousPackets(validating: bytes, of: request)
            #expect(expected == nil)
        } catch { #expect(error == expected) }
    }

    @Test func packetsLargerThanUSB() throws {
        let segments = [whole, URBSegment(GrantReference(2), offset: 0, length: 16)]
        let request = try URBRequest(validating: RawURB(isochronous(1, segments, frames: 1)), portCount: 1)
        let bytes = TestBytes("00000000 010C0000 00000000 00000000")
        #expect(throws: URBFault.packetLength(index: 0, 3073)) {
            _ = try IsochronousPackets(validating: bytes, of: request)
        }
    }
}

@Suite struct USBRandomBytes {
    /// Random slots and descriptors, biased so that a good part gets through: none traps, and what gets through keeps its
    /// promises.
    @Test func neverTrap() {
        var generator = SeededGenerator(seed: 0x7573_6266)
        var passed = 0
        var isochronous = 0
        for round in 0..<6000 {
            let slot = TestBytes((0..<148).map { _ in UInt8.random(in: 0...255, using: &generator) })
            if round % 4 != 0 { soften(slot, &generator) }
            guard let request = try? URBRequest(validating: RawURB(slot), portCount: 31) else { continue }
            passed += 1
            check(request, slot)
            _ = USBControlRequest(RawURB(slot).setup)
            guard request.frameSegmentCount > 0 else { continue }
            let frames = TestBytes(
                (0..<request.frameByteCount).map { $0 % 4 < 2 ? UInt8.random(in: 0...3, using: &generator) : 0 }
            )
            guard let packets = try? IsochronousPackets(validating: frames, of: request) else { continue }
            isochronous += 1
            var end = 0
            for index in 0..<packets.count {
                let packet = packets.packet(index)
                #expect(packet.offset >= end && packet.byteCount <= 3072)
                end = packet.offset + packet.byteCount
                packets.finish(index, byteCount: packet.byteCount, .okay)
            }
            #expect(end <= request.byteCount)
        }
        #expect(
            passed > 1000 && isochronous > 10,
            "the test must also see requests that pass: \(passed) \(isochronous)"
        )
    }

    private func check(_ request: URBRequest, _ slot: TestBytes) {
        #expect((1...31).contains(request.port.number))
        #expect(request.byteCount <= 65536 && request.transferByteCount <= request.byteCount)
        #expect(request.segmentCount + request.frameSegmentCount <= 16)
        let segments = (0..<Int(request.segmentCount)).map { request.segment($0, in: slot) }
        let frames = (0..<Int(request.frameSegmentCount)).map { request.frameSegment($0, in: slot) }
        for segment in segments + frames {
            #expect(segment.length > 0 && Int(segment.offset) + Int(segment.length) <= 4096)
        }
        #expect(segments.reduce(0) { $0 + Int($1.length) } == request.byteCount)
        #expect(frames.reduce(0) { $0 + Int($1.length) } == request.frameByteCount)
    }

    private func soften(_ slot: TestBytes, _ generator: inout SeededGenerator) {
        let type = USBTransferType.allCases.randomElement(using: &generator)!
        let pipe = USBPipe(
            USBPort(Int.random(in: 1...31, using: &generator))!,
            type,
            device: UInt8.random(in: 0...127, using: &generator),
            endpoint: type == .control ? 0 : UInt8.random(in: 0...15, using: &generator),
            Bool.random(using: &generator) ? .in : .out,
            isUnlink: UInt8.random(in: 0...9, using: &generator) == 0
        )
        slot.set32(pipe.rawValue, at: 4)
        let count = UInt16.random(in: 0...17, using: &generator)
        slot.set16(count, at: 2)
        slot.set16(UInt16.random(in: 0...1, using: &generator), at: 8)
        var sum: UInt16 = 0
        for index in 0..<16 {
            let offset = UInt16.random(in: 0...4000, using: &generator)
            slot.set16(offset, at: 20 + index * 8 + 4)
            let length = UInt16.random(in: 1...4096 - offset, using: &generator)
            slot.set16(length, at: 20 + index * 8 + 6)
            if index < count { sum &+= length }
        }
        slot.set16(sum, at: 10)
        if type == .control { slot.set16(UInt16.random(in: 0...sum, using: &generator), at: 18) }
        if type == .isochronous {
            slot.set16(count < 16 ? 1 : 0, at: 18)
            let packets = UInt16.random(in: 0...12, using: &generator)
            slot.set16(packets, at: 16)
            if count < 16 { slot.set16(packets * 16, at: 20 + Int(count) * 8 + 6) }
        }
    }
}
