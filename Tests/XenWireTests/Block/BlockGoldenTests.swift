// Golden bytes of blkif.h in both layouts, made by gcc from the header's own structures.

import Testing
import XenWire

@Suite struct BlockGoldenBytes {
    // struct blkif_request {1 (write), 2, 0xCA00, 0x1122334455667788, 0x0102030405060708,
    //   {{0xAABBCCDD, 1, 7}, {0x00000009, 0, 3}}}, gcc -m32 and -m64.
    static let writes: [(BlockABI, String)] = [
        (.x86_32, "01 02 00CA 8877665544332211 0807060504030201 DDCCBBAA 01 07 0000 09000000 00 03 0000"),
        (.x86_64, "01 02 00CA 00000000 8877665544332211 0807060504030201 DDCCBBAA 01 07 0000 09000000 00 03 0000"),
        (.arm, "01 02 00CA 00000000 8877665544332211 0807060504030201 DDCCBBAA 01 07 0000 09000000 00 03 0000"),
    ]

    static func slot(_ abi: BlockABI, _ text: String) -> TestBytes {
        let bytes = TestBytes(text)
        bytes.bytes += [UInt8](repeating: 0, count: abi.requestSize - bytes.byteCount)
        return bytes
    }

    @Test(arguments: [(BlockABI.x86_32, 108, 12), (.x86_64, 112, 16), (.arm, 112, 16)])
    func sizes(_ abi: BlockABI, _ request: Int, _ response: Int) {
        #expect(abi.requestSize == request)
        #expect(abi.responseSize == response)
    }

    @Test(arguments: BlockGoldenBytes.writes)
    func write(_ abi: BlockABI, _ text: String) throws {
        let slot = BlockGoldenBytes.slot(abi, text)
        let raw = RawBlockRequest(slot, abi: abi)
        #expect(raw.operation == .write)
        #expect(raw.answeredOperation == .write)
        #expect(raw.segmentCount == 2)
        #expect(raw.handle == 0xCA00)
        #expect(raw.id == 0x1122_3344_5566_7788)
        #expect(raw.sector == 0x0102_0304_0506_0708)
        let segments = [
            BlockSegment(reference: GrantReference(0xAABB_CCDD), firstSector: 1, lastSector: 7),
            BlockSegment(reference: GrantReference(9), firstSector: 0, lastSector: 3),
        ]
        #expect([raw.segment(0), raw.segment(1)] == segments)

        let request = try BlockRequest(validating: raw, for: BlockLimits(capacity: 1 << 60))
        #expect(request.kind == .write)
        #expect(request.sectorCount == 11)
        #expect(request.byteCount == 11 * 512)
        #expect((0..<2).map { request.segment($0, in: slot) } == segments)

        let encoded = TestBytes(count: abi.requestSize, filledWith: 0xFF)
        abi.encode(.write, id: raw.id, sector: raw.sector, segments: segments, handle: 0xCA00, into: encoded)
        #expect(encoded.bytes == slot.bytes)
    }

    // struct blkif_request_discard {5, 1, 0, 0x1122334455667788, 0x10, 0x20}
    @Test(arguments: [
        (BlockABI.x86_32, "05 01 0000 8877665544332211 1000000000000000 2000000000000000"),
        (.x86_64, "05 01 0000 00000000 8877665544332211 1000000000000000 2000000000000000"),
    ])
    func discard(_ abi: BlockABI, _ text: String) throws {
        let slot = BlockGoldenBytes.slot(abi, text)
        let raw = RawBlockRequest(slot, abi: abi)
        for (features, kind) in [
            (BlockLimits.Features.discard, BlockRequest.Kind.discard), ([.discard, .secureDiscard], .secureDiscard),
        ] {
            let request = try BlockRequest(validating: raw, for: BlockLimits(capacity: 0x30, features: features))
            #expect(request.kind == kind)
            #expect(request.operation == .discard)
            #expect(request.sector == 0x10)
            #expect(request.sectorCount == 0x20)
            #expect(request.segmentCount == 0)
        }
        let encoded = TestBytes(count: abi.requestSize, filledWith: 0xFF)
        abi.encodeDiscard(id: raw.id, sector: 0x10, sectorCount: 0x20, isSecure: true, into: encoded)
        #expect(encoded.bytes == slot.bytes)
    }

    // struct blkif_request_indirect {6, 0 (read), 513, 0x1122334455667788, 0x10, 0xCA00, {0xA1, 0xA2}}
    @Test(arguments: [
        (BlockABI.x86_32, "06 00 0102 8877665544332211 1000000000000000 00CA 0000 A1000000 A2000000"),
        (.x86_64, "06 00 0102 00000000 8877665544332211 1000000000000000 00CA 0000 A1000000 A2000000"),
    ])
    func indirect(_ abi: BlockABI, _ text: String) throws {
        let slot = BlockGoldenBytes.slot(abi, text)
        let raw = RawBlockRequest(slot, abi: abi)
        #expect(raw.operation == .indirect)
        #expect(raw.answeredOperation == .read)
        #expect(raw.handle == 0xCA00)
        #expect(raw.indirectGrant(0) == GrantReference(0xA1))
        #expect(raw.indirectGrant(1) == GrantReference(0xA2))
        #expect(raw.indirectGrant(7) == GrantReference(0))
        let limits = BlockLimits(capacity: 1 << 20, maxIndirectSegments: 4096)
        let pages = try BlockIndirectPages(validating: raw, for: limits)
        #expect(pages.segmentCount == 513)
        #expect(pages.count == 2)
        #expect(pages.byteCount(ofPage: 0) == 4096)
        #expect(pages.byteCount(ofPage: 1) == 8)

        let segments = (0..<513).map {
            BlockSegment(reference: GrantReference(UInt32($0)), firstSector: UInt8($0 & 3), lastSector: 7)
        }
        let copy = TestBytes(count: 8192)
        BlockABI.encode(segments, into: copy, at: 0)
        let request = try BlockRequest(validating: raw, pages, segments: copy, for: limits)
        #expect(request.kind == .read)
        #expect(request.operation == .read)
        #expect(request.segmentCount == 513)
        #expect(request.sectorCount == UInt64(segments.reduce(0) { $0 + $1.sectorCount }))
        #expect((0..<513).map { request.segment($0, in: copy) } == segments)

        let encoded = TestBytes(count: abi.requestSize, filledWith: 0xFF)
        abi.encodeIndirect(
            .read,
            id: raw.id,
            sector: 0x10,
            segmentCount: 513,
            pages: [GrantReference(0xA1), GrantReference(0xA2)],
            handle: 0xCA00,
            into: encoded
        )
        #expect(encoded.bytes == slot.bytes)
    }

    @Test(arguments: [
        (BlockABI.x86_32, BlockStatus.error, "8877665544332211 02 00 FFFF"),
        (.x86_64, .unsupported, "8877665544332211 02 00 FEFF 00000000"),
        (.arm, .okay, "8877665544332211 02 00 0000 00000000"),
    ])
    func response(_ abi: BlockABI, _ status: BlockStatus, _ text: String) {
        let response = BlockResponse(id: 0x1122_3344_5566_7788, operation: .writeBarrier, status: status)
        // What was in the slot before is not what goes out (XSA-216).
        let slot = TestBytes(count: abi.responseSize, filledWith: 0xAA)
        response.encode(into: slot, abi: abi)
        #expect(slot.bytes == TestBytes(text).bytes)
        #expect(BlockResponse(decoding: slot) == response)
        let words = TestBytes(count: 16)
        words.set64(response.words.low, at: 0)
        words.set64(response.words.high, at: 8)
        #expect(words.bytes.starts(with: slot.bytes))
    }

    @Test(arguments: [
        ("x86_32-abi", BlockABI.x86_32), ("x86_64-abi", .x86_64), ("arm-abi", .arm), ("X86_64-ABI", nil), ("", nil),
        ("x86_64-abi\n", nil),
    ])
    func protocolKey(_ key: String, _ abi: BlockABI?) { #expect(BlockABI(protocolKey: key) == abi) }

    @Test func aMissingProtocolKeyIsNative() { #expect(BlockABI(protocolKey: nil) == .native) }
}
