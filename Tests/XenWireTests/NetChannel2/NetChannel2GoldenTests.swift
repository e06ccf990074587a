// Golden bytes of netchannel2.h, written down from the layout of each message.

import Testing
import XenWire

/// Messages as bytes, and as what they mean.
enum NetChannel2Samples {
    static let data60 = String(repeating: "A5", count: 60)
    static let data64 = String(repeating: "5A", count: 64)

    static let small = NetChannel2Packet(id: 7, type: .small, prefixSize: 60, byteCount: 60)
    static let map = NetChannel2Packet(
        id: 0x2A,
        type: .receiverMap,
        flags: [.checksumBlank, .needEvent],
        checksumStart: 34,
        checksumOffset: 50,
        prefixSize: 64,
        fragmentCount: 1,
        byteCount: 1514
    )
    static let smallBytes = "0200 5000 07000000 04 00 00 00 3C00 0000 0000 0000" + data60
    static let mapBytes =
        "0200 6000 2A000000 03 09 00 00 4000 0000 2200 3200 AA05 0001 23010000" + data64 + "00000000"

    static let all: [(String, NetChannel2Message)] = [
        ("0100 0800 80000000", .setMaxPackets(128)),
        ("0400 0800 01010000", .setOffload([.checksum, .segmentationV4])),
        ("0400 0800 00000000", .setOffload([])),
        ("0400 0800 02000000", .setOffload(.checksum)),
        ("0500 0800 11000000", .setMaxFragmentsPerPacket(17)),
        ("0300 0800 44332211", .finishPacket(id: 0x1122_3344)),
        (smallBytes, .packet(small)),
        (mapBytes, .packet(map)),
        ("0B00 0800 FFFFFFFF", .bypass(.frontendReady(port: -1))),
        ("0C00 0800 00000000", .bypass(.ready)),
        ("0D00 0800 09000000", .bypass(.disable(handle: 9))),
        ("0E00 0800 09000000", .bypass(.disabled(handle: 9))),
        ("0F00 0800 09000000", .bypass(.detach(handle: 9))),
        ("1000 0800 09000000", .bypass(.detached(handle: 9))),
        ("1100 1000 00163E010203 0000 00000000", .bypass(.suggest(MACAddress(0, 0x16, 0x3E, 1, 2, 3)))),
        (bypassBytes(type: "09", port: "00000000"), .bypass(.frontend(bypassSetup))),
        (bypassBytes(type: "0A", port: "2A000000"), .bypass(.backend(bypassSetup, port: EventChannelPort(42)))),
        ("FF00 1000 DEADBEEF DEADBEEFDEADBEEF", .pad),
        ("0600 1000 DEADBEEF DEADBEEFDEADBEEF", .unknown(NetChannel2MessageType(rawValue: 6))),
    ]

    static func bypassBytes(type: String, port: String) -> String {
        "\(type)00 3000 \(port) F07F 0300 07000000 00163E0A0B0C 01 02 11000000 00000000"
            + "21000000 22000000 31000000 32000000"
    }
    static let bypassSetup = NetChannel2BypassSetup(
        ringDomain: 0x7FF0,
        peerDomain: 3,
        handle: 7,
        remoteMAC: MACAddress(0, 0x16, 0x3E, 0x0A, 0x0B, 0x0C),
        isPeerTrusted: true,
        control: GrantReference(0x11),
        producerRing: [GrantReference(0x21), GrantReference(0x22)],
        consumerRing: [GrantReference(0x31), GrantReference(0x32)]
    )
}

@Suite struct NetChannel2GoldenBytes {
    @Test(arguments: NetChannel2Samples.all)
    func decodes(_ text: String, _ message: NetChannel2Message) throws {
        #expect(try NetChannel2Message(decoding: TestBytes(text)) == message)
    }

    /// A message of which only the beginning is there is none, at whatever byte it ends; and it never traps.
    @Test(arguments: NetChannel2Samples.all)
    func aPieceIsNoMessage(_ text: String, _ message: NetChannel2Message) throws {
        let whole = TestBytes(text).bytes
        if case .pad = message { return }
        if case .unknown = message { return }
        for count in stride(from: 8, to: whole.count, by: 1) {
            let decoded = try? NetChannel2Message(decoding: TestBytes(Array(whole[..<count])))
            if case .packet(let packet) = message, case .packet(let piece)? = decoded {
                // Padding may be missing, and a fragment may be; what is there still lies inside the message.
                #expect(piece.prefixOffset + piece.prefixSize <= count)
                #expect(piece.fragmentCount < max(packet.fragmentCount, 1) || count > whole.count - 8)
                continue
            }
            #expect(decoded == nil, "\(count) of \(whole.count) bytes")
        }
        // Nor is one with more bytes than its type has.
        let longer = TestBytes(whole + [UInt8](repeating: 0, count: 8))
        if case .packet(let packet) = message {
            switch packet.type {
            case .small:
                #expect(throws: NetChannel2MessageFault.fragmentCount(1)) {
                    _ = try NetChannel2Message(decoding: longer)
                }
            default: break
            }
        } else {
            #expect(throws: NetChannel2MessageFault.self) { _ = try NetChannel2Message(decoding: longer) }
        }
    }

    @Test func encodesShortMessages() {
        func text(_ words: WireWords) -> [UInt8] { NetGoldenBytes.bytes(of: words, 8) }
        #expect(text(NetChannel2Message.maxPackets(128)) == TestBytes("0100 0800 80000000").bytes)
        #expect(
            text(NetChannel2Message.offloads([.checksum, .segmentationV4])) == TestBytes("0400 0800 01010000").bytes
        )
        #expect(text(NetChannel2Message.offloads(.segmentationV4)) == TestBytes("0400 0800 00010000").bytes)
        #expect(text(NetChannel2Message.maxFragments(17)) == TestBytes("0500 0800 11000000").bytes)
        #expect(text(NetChannel2Message.finish(id: 0x1122_3344)) == TestBytes("0300 0800 44332211").bytes)
        #expect(
            NetChannel2Bypass.frontendReady(port: -1).answer.map(text) == TestBytes("0B00 0800 FFFFFFFF").bytes
        )
        #expect(NetChannel2Bypass.disabled(handle: 9).answer.map(text) == TestBytes("0E00 0800 09000000").bytes)
        #expect(NetChannel2Bypass.detached(handle: 9).answer.map(text) == TestBytes("1000 0800 09000000").bytes)
        #expect(NetChannel2Bypass.ready.answer == nil)
    }

    @Test func encodesPackets() {
        let small = TestBytes(count: 80)
        NetChannel2Samples.small.encode(into: small)
        for offset in 0..<60 { small.set8(0xA5, at: NetChannel2Samples.small.prefixOffset + offset) }
        #expect(small.bytes == TestBytes(NetChannel2Samples.smallBytes).bytes)

        let map = TestBytes(count: 96)
        NetChannel2Samples.map.encode(into: map)
        let fragment = NetChannel2Fragment(size: 1450, offset: 256, reference: GrantReference(0x123))
        NetChannel2Packet.encode(fragment, at: 0, into: map)
        for offset in 0..<64 { map.set8(0x5A, at: NetChannel2Samples.map.prefixOffset + offset) }
        #expect(map.bytes == TestBytes(NetChannel2Samples.mapBytes).bytes)
        #expect(NetChannel2Samples.map.fragment(0, in: map) == fragment)

        let segmented = NetChannel2Packet(id: 1, type: .receiverCopy, segmentSize: 1448, prefixSize: 0, byteCount: 0)
        let bytes = TestBytes(count: 24)
        segmented.encode(into: bytes)
        #expect(bytes.bytes[..<20] == TestBytes("0200 1800 01000000 01 00 01 00 0000 A805 0000 0000").bytes[...])
    }

    @Test func sizes() {
        #expect(NetChannel2Wire.packetMessage(fragments: 17, prefix: 256) == 416)
        #expect(NetChannel2Wire.packetMessage(fragments: 18, prefix: 256) == NetChannel2Wire.maxMessage)
        #expect(NetChannel2Wire.packetMessage(fragments: 0, prefix: 60) == 80)
        // The number of fragments follows from the message's size, whatever the padding.
        for prefix in 0...256 {
            for count in 0...19 {
                let size = NetChannel2Wire.packetMessage(fragments: count, prefix: prefix)
                #expect(size % 8 == 0 && (size - 20 - prefix) / 8 == count)
            }
        }
        #expect(NetChannel2Wire.maxPackets(producingRingBytes: 4 * 4096) == 512)
        let header = NetChannel2Header(.packet, size: 424)
        #expect(header.word == 0x01A8_0002 && NetChannel2Header(word: header.word) == header)
    }

    @Test func theControlPage() {
        typealias Layout = NetChannel2Layout
        let words = [Layout.producer, Layout.consumer, Layout.producerEvent, Layout.consumerEvent]
        #expect(words.map { $0(.frontend) } == [0, 4, 8, 12])
        #expect(words.map { $0(.backend) } == [64, 68, 72, 76])
    }

    @Test(
        arguments: [
            (0xFF0, 8, nil), (0xFF0, 16, 16), (0xFF8, 8, 8), (0, 4088, nil), (0xFFFF_FFF8, 8, 8), (0, 4096, 4096),
            (0x1FF0, 424, 16),
        ] as [(UInt32, UInt32, UInt32?)]
    )
    func wraps(_ index: UInt32, _ byteCount: UInt32, _ pad: UInt32?) {
        #expect(NetChannel2Index.wraps(index, byteCount, ringBytes: 4096) == (pad != nil))
        if let pad { #expect(NetChannel2Index.padding(index, ringBytes: 4096) == pad) }
    }

    @Test(
        arguments: [
            (0, 8, 1, true), (0, 8, 0, false), (0, 8, 8, true), (0, 8, 9, false), (8, 16, 9, true),
            (0xFFFF_FFF8, 8, 0xFFFF_FFF9, true), (0xFFFF_FFF8, 8, 0, true), (8, 8, 8, false),
        ] as [(UInt32, UInt32, UInt32, Bool)]
    )
    func notifies(_ old: UInt32, _ new: UInt32, _ event: UInt32, _ isTold: Bool) {
        #expect(NetChannel2Index.mustNotify(old: old, new: new, event: event) == isTold)
    }
}
