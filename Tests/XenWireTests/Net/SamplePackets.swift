// Whole packets with right checksums, made by a second implementation (Python's struct and a sum in big-endian order).

import Testing
import XenWire

/// One packet and what is known of it.
struct SamplePacket: Sendable, CustomTestStringConvertible {
    let name: String
    let bytes: [UInt8]
    let network: PacketHeaders.Network
    let transport: PacketHeaders.Transport
    let networkOffset: Int
    let transportOffset: Int
    let headerEnd: Int
    /// The sum of the pseudo header and the right checksum, as numbers.
    let pseudo: UInt16
    let checksum: UInt16

    var testDescription: String { name }
    var field: Int { transportOffset + (transport == .tcp ? 16 : 6) }
    var packet: TestBytes { TestBytes(bytes) }
    var headers: PacketHeaders { PacketHeaders(parsing: packet, count: bytes.count) }

    static let ethernet = "00163e0a0b0c 00163e010203"
    static let addresses6 = "fe8000000000000002163efffe010203 fe8000000000000002163efffe0a0b0c"
    static let data = "0102030405060708090a0b"
    static let ports = "9c40 1451"
    static let tcp = "01020304 05060708"

    init(
        _ name: String,
        _ text: String,
        _ network: PacketHeaders.Network,
        _ transport: PacketHeaders.Transport,
        _ offsets: (Int, Int, Int),
        pseudo: UInt16,
        checksum: UInt16
    ) {
        self.name = name
        bytes = TestBytes(SamplePacket.ethernet + text).bytes
        self.network = network
        self.transport = transport
        (networkOffset, transportOffset, headerEnd) = offsets
        self.pseudo = pseudo
        self.checksum = checksum
    }

    static let tcp4 = SamplePacket(
        "TCP over IPv4, odd length",
        "0800 45000033 12340000 4006548f 0a000001 0a000002 \(ports) \(tcp) 50180200 b4fb 0000 \(data)",
        .ipv4,
        .tcp,
        (14, 34, 54),
        pseudo: 0x1428,
        checksum: 0xB4FB
    )
    static let udp4 = SamplePacket(
        "UDP over IPv4",
        "0800 45000027 12340000 40115490 0a000001 0a000002 \(ports) 0013 1716 \(data)",
        .ipv4,
        .udp,
        (14, 34, 42),
        pseudo: 0x1427,
        checksum: 0x1716
    )
    static let tcp6 = SamplePacket(
        "TCP with options over IPv6",
        "86dd 60000000 00270640 \(addresses6) \(ports) \(tcp) 70180200 1caa 0000 0101010101010101 \(data)",
        .ipv6,
        .tcp,
        (14, 54, 82),
        pseudo: 0x8875,
        checksum: 0x1CAA
    )
    static let all: [SamplePacket] = [
        tcp4, udp4, tcp6,
        SamplePacket(
            "TCP with options over IPv4 with options",
            """
            0800 46000044 12340000 4006517d 0a000001 0a000002 01010100
            \(ports) \(tcp) 80180200 7e6e 0000 010101010101010101010101 \(data) 7a
            """,
            .ipv4,
            .tcp,
            (14, 38, 70),
            pseudo: 0x1435,
            checksum: 0x7E6E
        ),
        SamplePacket(
            "UDP over IPv6",
            "86dd 60000000 00131140 \(addresses6) \(ports) 0013 a2d0 \(data)",
            .ipv6,
            .udp,
            (14, 54, 62),
            pseudo: 0x886C,
            checksum: 0xA2D0
        ),
        SamplePacket(
            "UDP whose checksum would be 0",
            "0800 4500001e 12340000 40115499 0a000001 0a000002 \(ports) 000a ffff 3b46",
            .ipv4,
            .udp,
            (14, 34, 42),
            pseudo: 0x141E,
            checksum: 0xFFFF
        ),
        SamplePacket(
            "TCP over IPv4 with a tag",
            "8100 0005 0800 45000033 12340000 4006548f 0a000001 0a000002 \(ports) \(tcp) 50180200 b4fb 0000 \(data)",
            .ipv4,
            .tcp,
            (18, 38, 58),
            pseudo: 0x1428,
            checksum: 0xB4FB
        ),
        SamplePacket(
            "UDP over IPv6 with two tags",
            "88a8 0007 8100 0005 86dd 60000000 00131140 \(addresses6) \(ports) 0013 a2d0 \(data)",
            .ipv6,
            .udp,
            (22, 62, 70),
            pseudo: 0x886C,
            checksum: 0xA2D0
        ),
        SamplePacket(
            "TCP over IPv6 with two extension headers",
            """
            86dd 60000000 00370040 \(addresses6) 3c00010400000000 0601010c 000000000000000000000000
            \(ports) \(tcp) 50180200 40b6 0000 \(data)
            """,
            .ipv6,
            .tcp,
            (14, 78, 98),
            pseudo: 0x886D,
            checksum: 0x40B6
        ),
    ]
}
