// The interface of a card that is measured: one end of a pair of sockets, whose other end is in our hands.

internal import CLinux
internal import Glibc
internal import HostIO
internal import HostNetwork
internal import SharedRing
internal import SystemPackage

/// A device with one queue. Its packets look as a TAP's; no kernel interface has work with them.
final class BenchWire: PacketDevice {
    let name = "bench"
    let vhost: any VhostSource = NoVhost("a pair of sockets")
    let queue: PacketQueue
    private let end: OpenFile

    init() throws {
        var numbers: [CInt] = [-1, -1]
        let kind = CInt(SOCK_SEQPACKET.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue)
        // SAFETY: the array has room for the two numbers that the call writes.
        guard unsafe socketpair(AF_UNIX, kind, 0, &numbers) == 0 else { throw Errno(rawValue: errno) }
        queue = PacketQueue(OpenFile(adopting: numbers[0]))
        end = OpenFile(adopting: numbers[1])
        for number in numbers { unix_widen(number, 4 << 20) }
    }

    func openQueues(_ count: Int) -> [PacketQueue] { [queue] }
    func setOffloads(_ offloads: PacketOffloads) {}
    func setCarrier(_ isUp: Bool) {}
    var droppedByHost: UInt64 { 0 }

    /// Throws away what came out.
    /// - Returns: how many packets that was.
    func drain() -> Int {
        var (count, byte) = (0, UInt8(0))
        // SAFETY: one byte of ours; the kernel drops the rest of the packet.
        while unsafe recv(end.descriptor, &byte, 1, CInt(MSG_DONTWAIT)) > 0 { count += 1 }
        return count
    }

    /// Gives the interface a packet, header in front.
    func offer(_ packet: PrivatePages, byteCount: Int) throws {
        // SAFETY: the pages hold that many bytes and live until the call returns.
        let sent = unsafe unix_send(end.descriptor, packet.unsafeAddress(at: 0, count: byteCount), byteCount)
        if sent != byteCount { throw Errno(rawValue: errno) }
    }
}
