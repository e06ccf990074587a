// A persistent multi-queue TAP as a packet device.

internal import CLinux
internal import Glibc
package import HostIO
internal import Synchronization
internal import SystemPackage

/// The host's end of a card: a TAP that stays when its queues are gone, with its place in bridges and its counters.
final class TapDevice: PacketDevice {
    private let index: CInt
    let vhost: any VhostSource
    private let state: Mutex<State>

    private struct State: ~Copyable {
        var name: String
        /// Of the namespace that the interface is in.
        let netlink: NetlinkSocket
        /// Their descriptors belong to the queues: what can be set while one is open only goes through any of them.
        var queues: [WeakFile] = []
        var offloads: PacketOffloads = []
        var hasCarrier = true
    }

    private struct WeakFile: Sendable { weak let file: OpenFile? }

    init(_ link: borrowing Link, netlink: consuming NetlinkSocket, vhost: any VhostSource) {
        index = link.index
        self.vhost = vhost
        state = Mutex(State(name: link.name, netlink: netlink))
    }

    /// The interface's present name: a script may rename it.
    var name: String {
        state.withLock { state in
            if let link = try? state.netlink.link(index: index) { state.name = link.name }
            return state.name
        }
    }

    var droppedByHost: UInt64 { counters?.sentDropped ?? 0 }

    /// The kernel's counters, or nil if the interface is gone.
    var counters: LinkCounters? {
        state.withLock { state in (try? state.netlink.link(index: index))?.counters }
    }

    func openQueues(_ count: Int) throws(HostFailure) -> [PacketQueue] {
        precondition(count >= 1 && count <= 16)
        return try state.withLock { (state) throws(HostFailure) in
            if state.queues.contains(where: { $0.file != nil }) {
                throw HostFailure(.busy, "interface \(state.name): its queues are still open")
            }
            let link = try present(&state)
            var files: [OpenFile] = []
            for _ in 0..<count { try files.append(TapQueue.attach(link, state.netlink)) }
            state.queues = files.map { WeakFile(file: $0) }
            try apply(state.offloads, to: &state)
            // The first descriptor of an interface brings the carrier, one that joins a parked queue does not.
            try state.netlink.change(link, LinkChange(hasCarrier: state.hasCarrier))
            return files.map { PacketQueue($0) }
        }
    }

    func setOffloads(_ offloads: PacketOffloads) throws(HostFailure) {
        try state.withLock { (state) throws(HostFailure) in
            state.offloads = offloads
            try apply(offloads, to: &state)
        }
    }

    func setCarrier(_ isUp: Bool) throws(HostFailure) {
        try state.withLock { (state) throws(HostFailure) in
            state.hasCarrier = isUp
            // Without queues there is none, and the next ones bring what was asked for here.
            if isUp, !state.queues.contains(where: { $0.file != nil }) { return }
            try state.netlink.change(present(&state), LinkChange(hasCarrier: isUp))
        }
    }

    func keepPlace(
        named name: String?,
        _ placement: InterfacePlan.Placement?,
        mtu: UInt32?
    ) throws(HostFailure) -> (any PlaceKeeper)? {
        try state.withLock { (state) throws(HostFailure) in
            let link = try present(&state)
            if let name, link.name != name, let other = try state.netlink.link(named: name) {
                throw HostFailure(.busy, taken: name, by: other)
            }
        }
        return try LinkKeeper(index, placement, mtuIsGiven: mtu != nil)
    }

    private func apply(_ offloads: PacketOffloads, to state: inout State) throws(HostFailure) {
        guard let file = state.queues.lazy.compactMap(\.file).first else { return }
        var flags: UInt32 = 0
        if offloads.contains(.checksum) {
            flags |= UInt32(TUN_F_CSUM)
            if offloads.contains(.segmentationV4) { flags |= UInt32(TUN_F_TSO4) }
            if offloads.contains(.segmentationV6) { flags |= UInt32(TUN_F_TSO6) }
        }
        let status = tun_set_offloads(file.descriptor, flags)
        if status != 0 { throw .system("interface \(state.name): offloads cannot be set", status) }
    }

    private func present(_ state: inout State) throws(HostFailure) -> Link {
        guard let link = try state.netlink.link(index: index) else {
            throw HostFailure(.notFound, "interface \(state.name) is gone: somebody deleted it")
        }
        state.name = link.name
        return link
    }
}

/// Descriptors of a TAP.
enum TapQueue {
    /// Attaches another queue to an interface that exists.
    static func attach(_ link: Link, _ netlink: borrowing NetlinkSocket) throws(HostFailure) -> OpenFile {
        let file = try open(link.name, isNew: false)
        // Had it gone just now, the kernel would have made a new one, which goes with its only descriptor.
        guard try netlink.link(named: link.name)?.index == link.index else {
            throw HostFailure(.notFound, "interface \(link.name) is gone: somebody deleted it")
        }
        return file
    }

    /// Makes an interface, which lives as long as the descriptor.
    static func create(_ name: String) throws(HostFailure) -> OpenFile { try open(name, isNew: true) }

    /// Lets an interface outlive its descriptors.
    static func keep(_ file: OpenFile, _ name: String) throws(HostFailure) {
        let status = tun_set_persistent(file.descriptor, 1)
        if status != 0 { throw .system("interface \(name) cannot be kept", status) }
    }

    private static func open(_ name: String, isNew: Bool) throws(HostFailure) -> OpenFile {
        // SAFETY: the name lives, NUL-terminated, until the call returns.
        let descriptor = HostDoor.enter(.tap(name)) {
            unsafe tun_open_queue(name, isNew ? 1 : 0, CInt(PacketQueue.headerBytes))
        }
        switch -descriptor {
        case ENOENT, ENODEV, ENXIO:
            throw HostFailure(.host, "interface \(name): the kernel has no /dev/net/tun; load the module tun")
        case EBUSY where isNew:
            throw HostFailure(.busy, "interface \(name) exists already and is not ours")
        case EINVAL where !isNew, EBUSY where !isNew:
            throw HostFailure(.busy, "interface \(name) exists and is no multi-queue TAP")
        case 1...: throw .system("interface \(name) cannot be opened", -descriptor)
        default: return OpenFile(adopting: descriptor)
        }
    }
}

extension HostFailure {
    /// A failed system call.
    package static func system(_ what: String, _ number: CInt) -> HostFailure {
        let advice = number == EPERM || number == EACCES ? "this needs CAP_NET_ADMIN" : nil
        return HostFailure(what, Errno(rawValue: number), advice: advice)
    }
}
