// A queue that is out of service and keeps an interface's link up.

internal import CLinux
public import HostIO

/// A descriptor at a TAP whose queue is detached: no packets come to it.
///
/// The kernel takes an interface's carrier away when its last descriptor is closed, detached ones counted
/// (drivers/net/tun.c, `__tun_detach`: `numqueues` and `numdisabled`). While somebody holds this one, nobody notices
/// the death of the process with the queues: bridges, switches and the host's sockets see no change until the successor
/// attaches new ones.
public final class ParkedQueue: Sendable {
    /// The interface's name when the queue was parked.
    public let name: String
    private let file: OpenFile
    /// For whoever keeps a copy: the link stays up while any copy is open. Never close it.
    public var descriptor: CInt { file.descriptor }

    /// Parks a queue at the interface of that owner. Makes none where there is none.
    /// - Throws: `.notFound` if there is no such interface.
    public init(owner: String) throws(HostFailure) {
        let netlink = try NetlinkSocket()
        guard let link = try KernelNetwork.own(owner, netlink) else {
            throw HostFailure(.notFound, "there is no interface of '\(owner)'")
        }
        file = try TapQueue.attach(link, netlink)
        name = link.name
        let status = tun_park_queue(file.descriptor)
        if status != 0 { throw .system("a queue of interface \(name) cannot be parked", status) }
        // The first descriptor of an interface turns the carrier on.
        if !link.hasCarrier { try? netlink.change(link, LinkChange(hasCarrier: false)) }
    }
}
