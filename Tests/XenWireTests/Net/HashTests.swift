// Toeplitz hashes by Microsoft's published vectors, and the control ring's machine.

import Testing
import XenWire

/// "Verifying the RSS Hash Calculation" of Microsoft's driver documentation.
private var officialKey: TestBytes {
    TestBytes("6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa")
}

struct OfficialVector: Sendable {
    /// Source, destination, source port, destination port: hexadecimal.
    let source: String
    let destination: String
    let ports: (UInt16, UInt16)
    let addressHash: UInt32
    let tcpHash: UInt32

    init(_ source: String, _ destination: String, _ ports: (UInt16, UInt16), _ addressHash: UInt32, _ tcpHash: UInt32) {
        self.source = source
        self.destination = destination
        self.ports = ports
        self.addressHash = addressHash
        self.tcpHash = tcpHash
    }

    static let all: [OfficialVector] = [
        OfficialVector("420995bb", "a18e6450", (2794, 1766), 0x323E_8FC2, 0x51CC_C178),
        OfficialVector("c75c6f02", "41458c53", (14230, 4739), 0xD718_262A, 0xC626_B0EA),
        OfficialVector("1813c65f", "0c16cfb8", (12898, 38024), 0xD2D0_A5DE, 0x5C2B_394A),
        OfficialVector("261bcd1e", "d18ea306", (48228, 2217), 0x8298_9176, 0xAFC7_327F),
        OfficialVector("9927a3bf", "cabc7f02", (44251, 1303), 0x5D18_09C5, 0x10E8_28A2),
        OfficialVector(
            "3ffe250102001fff0000000000000007",
            "3ffe2501020000030000000000000001",
            (2794, 1766),
            0x2CC1_8CD5,
            0x4020_7D3D
        ),
        OfficialVector(
            "3ffe050100080000026097fffe40efab",
            "ff020000000000000000000000000001",
            (14230, 4739),
            0x0F0C_461C,
            0xDDE5_1BBF
        ),
        OfficialVector(
            "3ffe1900454500030200f8fffe2167cf",
            "fe800000000000000200f8fffe2167cf",
            (44251, 38024),
            0x4B61_E985,
            0x02D1_FEEF
        ),
    ]

    var isIPv4: Bool { source.count == 8 }

    /// A packet between the two, of TCP or of UDP.
    func packet(tcp: Bool) -> TestBytes {
        let addresses = source + destination
        let header =
            isIPv4
            ? "0800 45000028 00000000 40\(tcp ? "06" : "11")0000" + addresses
            : "86dd 60000000 0014\(tcp ? "06" : "11")40" + addresses
        let packet = TestBytes(SamplePacket.ethernet + header + "00000000 00000000 00000000 50000000 00000000")
        packet.set16(ports.0.byteSwapped, at: packet.byteCount - 20)
        packet.set16(ports.1.byteSwapped, at: packet.byteCount - 18)
        return packet
    }
}

private func settings(_ types: HashTypes) -> HashSettings {
    var settings = HashSettings()
    let requests = [
        ControlRequest(id: 1, type: .setHashAlgorithm, 1), ControlRequest(id: 2, type: .setHashFlags, types.rawValue),
    ]
    for request in requests {
        #expect(settings.plan(request, queues: 4) == .answer(ControlResponse(to: request, .success)))
    }
    let key = ControlRequest(id: 3, type: .setHashKey, 77, 40)
    #expect(settings.plan(key, queues: 4) == .copy(GrantReference(77), byteCount: 40))
    #expect(settings.finish(key, bytes: officialKey, queues: 4) == ControlResponse(to: key, .success))
    return settings
}

@Suite struct Hashes {
    @Test(arguments: OfficialVector.all)
    func officialVectors(_ vector: OfficialVector) {
        let input = TestBytes(vector.source + vector.destination)
        let hash = ToeplitzHash(key: officialKey, count: 40)
        #expect(hash.value(input, at: 0, count: input.byteCount) == vector.addressHash)

        let all = settings(.all)
        for (isTCP, value) in [(true, vector.tcpHash), (false, vector.addressHash)] {
            let packet = vector.packet(tcp: isTCP)
            let headers = PacketHeaders(parsing: packet, count: packet.byteCount)
            let kinds: [PacketHash.Kind] = vector.isIPv4 ? [.ipv4, .ipv4TCP] : [.ipv6, .ipv6TCP]
            let expected = PacketHash(kind: kinds[isTCP ? 1 : 0], value: value)
            #expect(all.hash(of: packet, headers: headers) == expected)
        }
        // Without ports, if they were not asked for.
        let packet = vector.packet(tcp: true)
        let headers = PacketHeaders(parsing: packet, count: packet.byteCount)
        #expect(settings([.ipv4, .ipv6]).hash(of: packet, headers: headers)?.value == vector.addressHash)
        let none = settings([.ipv4, .ipv4TCP, .ipv6, .ipv6TCP].filter { ($0.rawValue < 4) != vector.isIPv4 }.union)
        #expect(none.hash(of: packet, headers: headers) == nil)
    }

    @Test func theEmptyKeyHashesToZero() {
        let input = TestBytes("FFFFFFFFFFFFFFFF")
        #expect(ToeplitzHash().value(input, at: 0, count: 8) == 0)
        #expect(ToeplitzHash(key: TestBytes("80"), count: 1).value(input, at: 0, count: 8) == 0x8000_0000)
    }

    @Test func nothingIsHashedUnasked() {
        let sample = SamplePacket.tcp4
        #expect(HashSettings().hash(of: sample.packet, headers: sample.headers) == nil)
        #expect(!HashSettings().isActive)
        #expect(settings(.all).isActive && !settings([]).isActive)
        let arp = TestBytes(SamplePacket.ethernet + "0806")
        #expect(settings(.all).hash(of: arp, headers: PacketHeaders(parsing: arp, count: 14)) == nil)
    }

    @Test func queuesByModuloAndByMapping() {
        var settings = settings(.all)
        #expect(settings.queue(for: PacketHash(kind: .ipv4, value: 0xFFFF_FFFF), queues: 4) == 3)
        #expect(settings.queue(for: PacketHash(kind: .ipv4, value: 6), queues: 4) == 2)
        let size = ControlRequest(id: 1, type: .setHashMappingSize, 3)
        _ = settings.plan(size, queues: 4)
        #expect(settings.queue(for: PacketHash(kind: .ipv4, value: 4), queues: 4) == 0)
        let mapping = ControlRequest(id: 2, type: .setHashMapping, 9, 2, 1)
        #expect(settings.plan(mapping, queues: 4) == .copy(GrantReference(9), byteCount: 8))
        #expect(settings.finish(mapping, bytes: TestBytes("03000000 02000000"), queues: 4).status == 0)
        #expect(settings.mapping == [0, 3, 2])
        #expect(settings.queue(for: PacketHash(kind: .ipv4, value: 4), queues: 4) == 3)
        #expect(settings.queue(for: PacketHash(kind: .ipv4, value: 5), queues: 4) == 2)
    }
}

extension [HashTypes] {
    fileprivate var union: HashTypes { reduce([]) { $0.union($1) } }
}
