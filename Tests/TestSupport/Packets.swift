// Packets as a queue takes and gives them: virtio_net_hdr and frame, made and looked at.

internal import CLinux
internal import Glibc
public import HostIO
public import HostNetwork

/// A packet of a queue.
public struct Packet: Hashable {
    public var bytes: [UInt8]
    public init(bytes: [UInt8]) { self.bytes = bytes }

    /// virtio_net_hdr (linux/virtio_net.h).
    public var needsChecksum: Bool { bytes[0] & 1 != 0 }
    public var segmentationType: UInt8 { bytes[1] }
    public var segmentSize: Int { Int(bytes[4]) | Int(bytes[5]) << 8 }
    public var frame: ArraySlice<UInt8> { bytes[Packet.start...] }
    public var type: Int { Int(bytes[Packet.start + 12]) << 8 | Int(bytes[Packet.start + 13]) }
    /// What follows the Ethernet header.
    public var payload: [UInt8] { Array(bytes[Packet.body...]) }
    /// Where the frame begins, and what follows its Ethernet header.
    private static let start = PacketQueue.headerBytes
    private static let body = start + 14

    /// A frame of a type that nobody on a bare host sends (0x88b5, for experiments), with a body.
    public static func plain(to: UInt8 = 0xff, from: UInt8 = 1, body: [UInt8]) -> Packet {
        Packet(bytes: [UInt8](repeating: 0, count: start) + address(to) + address(from) + [0x88, 0xb5] + body)
    }

    private static func address(_ last: UInt8) -> [UInt8] {
        last == 0xff ? [UInt8](repeating: 0xff, count: 6) : [2, 0, 0, 0, 0, last]
    }

    /// TCP over IPv4, larger than any MTU, with its checksum left to the next one (NEEDS_CSUM, GSO TCPV4).
    public static func segmented(payload: [UInt8], segmentSize: UInt16) -> Packet {
        var ip: [UInt8] = [0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]
        var tcp: [UInt8] = [0x12, 0x34, 0x00, 0x50, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]
        let length = tcp.count + payload.count
        put(UInt16(ip.count + length), &ip, 2)
        put(~sum(ip[...]), &ip, 10)
        // The pseudo header's sum stands where the checksum will be.
        put(sum(ip[12..<20] + [0, 6, UInt8(length >> 8), UInt8(length & 255)]), &tcp, 16)
        var header: [UInt8] = [1, 1, 54, 0, UInt8(segmentSize & 255), UInt8(segmentSize >> 8), 34, 0, 16, 0]
        header += [UInt8](repeating: 0, count: start - header.count)
        return Packet(bytes: header + address(2) + address(1) + [8, 0] + ip + tcp + payload)
    }

    /// The ones' complement sum of big-endian words.
    public static func sum(_ bytes: ArraySlice<UInt8>) -> UInt16 {
        var total: UInt32 = 0
        for (position, byte) in bytes.enumerated() { total += UInt32(byte) << (position & 1 == 0 ? 8 : 0) }
        while total > 0xffff { total = total & 0xffff + total >> 16 }
        return UInt16(total)
    }

    private static func put(_ value: UInt16, _ bytes: inout [UInt8], _ offset: Int) {
        bytes[offset] = UInt8(value >> 8)
        bytes[offset + 1] = UInt8(value & 255)
    }

    /// IPv4 header and TCP checksum, as a receiver checks them.
    public var hasRightChecksums: Bool {
        let start = Packet.body
        let ip = bytes[start..<start + 20]
        let total = Int(bytes[start + 2]) << 8 | Int(bytes[start + 3])
        let segment = bytes[start + 20..<start + total]
        let pseudo = ip[start + 12..<start + 20] + [0, 6, UInt8(segment.count >> 8), UInt8(segment.count & 255)]
        return Packet.sum(ip) == 0xffff && Packet.sum(Array(pseudo + segment)[...]) == 0xffff
    }

    /// What TCP carries.
    public var tcpPayload: ArraySlice<UInt8> {
        let total = Int(bytes[Packet.body + 2]) << 8 | Int(bytes[Packet.body + 3])
        return bytes[Packet.body + 40..<Packet.body + total]
    }
}

extension PacketQueue {
    /// Sends one packet with a call of its own.
    public func put(_ packet: Packet) -> Int { unsafe write(file.descriptor, packet.bytes, packet.bytes.count) }

    /// The next packet, or nil if none comes in time.
    public func take(milliseconds: CInt = 2000) -> Packet? {
        guard linux_is_readable(file.descriptor, milliseconds) else { return nil }
        var bytes = [UInt8](repeating: 0, count: 70_000)
        let count = unsafe read(file.descriptor, &bytes, bytes.count)
        return count <= 0 ? nil : Packet(bytes: Array(bytes[..<count]))
    }

    /// The next packet of the experimental type: hosts talk among themselves (IPv6, IGMP) as soon as a link is up.
    public func takePlain(milliseconds: CInt = 2000) -> Packet? {
        while let packet = take(milliseconds: milliseconds) {
            if packet.type == 0x88b5 { return packet }
        }
        return nil
    }

    /// Waits until a bridge lets packets through from here to there: a port that got its carrier begins a moment later.
    public func reaches(_ other: PacketQueue) -> Bool {
        for _ in 0..<100 {
            _ = put(.plain(body: Array("probe".utf8) + [UInt8](repeating: 0, count: 50)))
            if other.takePlain(milliseconds: 50) != nil {
                while other.take(milliseconds: 20) != nil {}
                return true
            }
        }
        return false
    }
}

/// A plan on a bridge.
public func plan(_ name: String, bridge: String? = "bridge0", vlan: UInt16? = nil, mtu: UInt32 = 1500) -> InterfacePlan
{
    InterfacePlan(
        name: name,
        owner: "xenback test \(name)",
        mtu: mtu,
        placement: bridge.map { .bridge(name: $0, vlan: vlan) }
    )
}

/// The failure of a call that must fail.
public func failure<T>(_ body: () throws(HostFailure) -> T) -> HostFailure? {
    do throws(HostFailure) {
        _ = try body()
        return nil
    } catch { return error }
}
