// Messages that are none: each is refused by name, and no bytes whatsoever trap.

import Testing
import XenWire

@Suite struct NetChannel2BadMessages {
    /// A packet of `count` fragments, each of `size` bytes at `offset`.
    static func packet(
        type: NetChannel2PacketType = .receiverMap,
        prefix: Int = 64,
        fragments: [(size: UInt16, offset: UInt16)]
    ) -> TestBytes {
        let packet = NetChannel2Packet(
            id: 1,
            type: type,
            prefixSize: prefix,
            fragmentCount: fragments.count,
            byteCount: 0
        )
        let bytes = TestBytes(count: packet.messageSize)
        packet.encode(into: bytes)
        for (index, fragment) in fragments.enumerated() {
            NetChannel2Packet.encode(
                NetChannel2Fragment(size: fragment.size, offset: fragment.offset, reference: GrantReference(9)),
                at: index,
                into: bytes
            )
        }
        return bytes
    }

    func expect(_ bytes: TestBytes, _ fault: NetChannel2MessageFault) {
        #expect(throws: fault) { _ = try NetChannel2Message(decoding: bytes) }
    }

    @Test func sizesThatTheTypeHasNot() {
        for type in [1, 3, 4, 5, 11, 12, 13, 14, 15, 16] as [UInt8] {
            let bytes = TestBytes(count: 16)
            bytes.set8(type, at: 0)
            expect(bytes, .wrongSize(type: NetChannel2MessageType(rawValue: type), size: 16))
        }
        for count in [8, 24] {
            let bytes = TestBytes(count: count)
            bytes.set8(17, at: 0)
            expect(bytes, .wrongSize(type: .suggestBypass, size: count))
        }
        let short = TestBytes(count: 16)
        short.set8(2, at: 0)
        expect(short, .wrongSize(type: .packet, size: 16))
        short.set8(9, at: 0)
        expect(short, .wrongSize(type: .bypassFrontend, size: 16))
    }

    @Test func rings() {
        for pages in [0, 3, 17, 32, 255] as [UInt8] {
            let bytes = TestBytes(count: 48)
            bytes.set8(10, at: 0)
            bytes.set8(pages, at: 23)
            expect(bytes, .ringPages(pages))
        }
        let bytes = TestBytes(count: 48)
        bytes.set8(9, at: 0)
        bytes.set8(4, at: 23)
        expect(bytes, .wrongSize(type: .bypassFrontend, size: 48))
    }

    @Test func types() {
        for type in [0, 2, 5, 255] as [UInt8] {
            let bytes = TestBytes(NetChannel2Samples.smallBytes)
            bytes.set8(type, at: 8)
            expect(bytes, .packetType(type))
        }
        let bytes = TestBytes(NetChannel2Samples.smallBytes)
        bytes.set8(2, at: 10)
        expect(bytes, .segmentationType(2))
        bytes.set8(1, at: 10)
        expect(bytes, .segmentationSize)
    }

    @Test func prefixes() {
        let bytes = TestBytes(NetChannel2Samples.smallBytes)
        for prefix in [61, 256, 257, 65535] as [UInt16] {
            bytes.set16(prefix, at: 12)
            expect(bytes, .prefix(Int(prefix)))
        }
        let long = TestBytes(count: 512)
        long.set8(2, at: 0)
        long.set8(4, at: 8)
        long.set16(257, at: 12)
        expect(long, .prefix(257))
    }

    @Test func fragments() throws {
        let page = (size: UInt16(2048), offset: UInt16(0))
        #expect(throws: Never.self) {
            _ = try NetChannel2Message(
                decoding: NetChannel2BadMessages.packet(fragments: Array(repeating: page, count: 18))
            )
        }
        expect(NetChannel2BadMessages.packet(fragments: Array(repeating: page, count: 19)), .fragmentCount(19))
        expect(NetChannel2BadMessages.packet(type: .small, fragments: [page]), .fragmentCount(1))
        for (size, offset) in [(0, 0), (1, 4096), (4096, 1), (4097, 0), (65535, 65535), (2, 4095)] as [(UInt16, UInt16)]
        {
            expect(
                NetChannel2BadMessages.packet(fragments: [page, (size, offset)]),
                .crossesPage(offset: offset, size: size)
            )
        }
        #expect(throws: Never.self) {
            _ = try NetChannel2Message(decoding: NetChannel2BadMessages.packet(fragments: [(4096, 0), (1, 4095)]))
        }
    }

    @Test func packetsBeyondTheLargest() throws {
        let full = Array(repeating: (size: UInt16(4096), offset: UInt16(0)), count: 16)
        let largest = try NetChannel2Message(decoding: NetChannel2BadMessages.packet(prefix: 0, fragments: full))
        guard case .packet(let packet) = largest else { throw NetChannel2MessageFault.packetSize(0) }
        #expect(packet.byteCount == 65536)
        expect(NetChannel2BadMessages.packet(prefix: 1, fragments: full), .packetSize(65537))
    }

    /// Whatever the bytes are, decoding them ends; what it accepts lies inside the message.
    @Test func anyBytes() {
        var generator = SeededGenerator(seed: 0x2009_0707)
        let types: [UInt8] = [1, 2, 2, 2, 2, 3, 4, 5, 6, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 255]
        var accepted = 0
        for _ in 0..<6000 {
            let count = 8 * Int.random(in: 1...60, using: &generator)
            let bytes = TestBytes((0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) })
            bytes.set8(types.randomElement(using: &generator) ?? 2, at: 0)
            if count > 8 {
                if Bool.random(using: &generator) { bytes.set8(UInt8.random(in: 0...5, using: &generator), at: 8) }
                if Bool.random(using: &generator) { bytes.set16(UInt16.random(in: 0...300, using: &generator), at: 12) }
                if Bool.random(using: &generator) { bytes.set8(0, at: 10) }
            }
            guard let message = try? NetChannel2Message(decoding: bytes) else { continue }
            accepted += 1
            guard case .packet(let packet) = message else { continue }
            #expect(packet.prefixOffset + packet.prefixSize <= count)
            #expect(packet.byteCount <= NetChannel2Wire.maxPacket && packet.prefixSize <= 256)
        }
        #expect(accepted > 150)
    }
}
