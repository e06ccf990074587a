// Packet devices over unix sockets, for demonstrations and tests without root: no kernel interface anywhere.

internal import CLinux
internal import Glibc
public import HostIO
public import HostNetwork
public import SystemPackage

/// A network of sockets: each queue of a device is one SOCK_SEQPACKET connection to `<directory>/<name>`, where a
/// `PacketExchange` of this or another process plays the host.
///
/// Packets look like those of a TAP. The exchange does not do the kernel's work on them: it forwards a packet
/// unchanged, with missing checksums and large segments, whatever offloads the receiver has set.
public struct SocketNetwork: NetworkHost {
    /// Bytes that may wait in each direction of a queue: about 64 large packets.
    static let bufferBytes: CInt = 4 << 20

    private let directory: FilePath

    /// - Parameter directory: where the exchange listens; together with a device's name at most 107 bytes.
    ///
    /// A closed peer is an error of a call, so SIGPIPE is ignored in this process from now on.
    public init(directory: FilePath) {
        self.directory = directory
        signal(SIGPIPE, SIG_IGN)
    }

    /// Placement, MTU and owner mean nothing here.
    /// - Throws: `.notFound` if nobody listens there, `.invalid` for an invalid name.
    public func open(_ plan: InterfacePlan) throws(HostFailure) -> any PacketDevice {
        try InterfaceName.check(plan)
        let device = SocketDevice(name: plan.name, path: directory.appending(plan.name))
        _ = try device.connect()
        return device
    }

    /// The listener is the exchange's, not ours.
    public func remove(_ plan: InterfacePlan) throws(HostFailure) {}
}

/// A device of a `SocketNetwork`.
final class SocketDevice: PacketDevice {
    let name: String
    private let path: FilePath

    init(name: String, path: FilePath) {
        self.name = name
        self.path = path
    }

    func openQueues(_ count: Int) throws(HostFailure) -> [PacketQueue] {
        precondition(count >= 1 && count <= 16)
        var queues: [PacketQueue] = []
        for _ in 0..<count { try queues.append(PacketQueue(connect())) }
        return queues
    }

    var vhost: any VhostSource { NoVhost("the sockets of an exchange have no vhost-net") }
    func setOffloads(_ offloads: PacketOffloads) throws(HostFailure) {}
    func setCarrier(_ isUp: Bool) throws(HostFailure) {}
    var droppedByHost: UInt64 { 0 }

    func connect() throws(HostFailure) -> OpenFile {
        let descriptor = unix_packet_socket(1)
        if descriptor < 0 { throw .system("\(path): no socket", errno) }
        let file = OpenFile(adopting: descriptor)
        unix_widen(descriptor, SocketNetwork.bufferBytes)
        // SAFETY: the path lives, NUL-terminated, until the call returns.
        if unsafe unix_connect(descriptor, path.string) < 0 {
            let reason = Errno(rawValue: errno)
            throw HostFailure(.notFound, "nobody exchanges packets at \(path): \(reason)")
        }
        return file
    }
}
