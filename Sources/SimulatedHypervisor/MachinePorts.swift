// The machine's event channels: who is bound to whom, and what a death leaves behind.

internal import Hypervisor
internal import SystemPackage
internal import XenWire

/// A channel: one eventfd for the events of each end. It outlives either end, so that a successor can take a dead
/// end's place and the other end, which holds the same descriptors, notices nothing.
struct EventChannelPair: Sendable {
    let toAllocator: Descriptor
    let toBinder: Descriptor

    init() throws(Errno) {
        toAllocator = try .event()
        toBinder = try .event()
    }
}

extension MachineState {
    /// One end of a channel in one domain (xen/common/event_channel.c, `ECS_UNBOUND` and `ECS_INTERDOMAIN`).
    struct Port: Sendable {
        enum Peer: Sendable {
            case unbound(DomainID)
            case bound(serial: UInt64, port: UInt32)
        }
        var peer: Peer
        let pair: EventChannelPair
        let isAllocator: Bool

        /// Readable when this end has an event.
        var inbound: Descriptor { isAllocator ? pair.toAllocator : pair.toBinder }
        /// Written to notify the other end.
        var outbound: Descriptor { isAllocator ? pair.toBinder : pair.toAllocator }
    }

    mutating func allocatePort(for remote: DomainID, of id: UInt64) throws(Errno) -> (UInt32, Port) {
        let port = Port(peer: .unbound(remote), pair: try EventChannelPair(), isAllocator: true)
        return (try insert(port, of: id), port)
    }

    mutating func bindPort(
        _ remotePort: UInt32,
        of remote: DomainID,
        for id: UInt64
    ) throws(Errno) -> (UInt32, Port) {
        guard let session = sessions[id] else { throw .noSuchProcess }
        releaseDeadPorts()
        guard isFree(remotePort, of: remote, for: session.caller.domain), let remoteSerial = serials[remote],
            let other = domains[remoteSerial]?.ports[remotePort]
        else { throw .invalidArgument }
        let port = Port(
            peer: .bound(serial: remoteSerial, port: remotePort),
            pair: other.pair,
            isAllocator: !other.isAllocator
        )
        let number = try insert(port, of: id)
        domains[remoteSerial]?.ports[remotePort]?.peer = .bound(serial: session.serial, port: number)
        // event_channel.c, evtchn_bind_interdomain: "We may have lost notifications on the remote unbound port."
        port.inbound.signal()
        return (number, port)
    }

    private func isFree(_ port: UInt32, of remote: DomainID, for domain: DomainID) -> Bool {
        guard let serial = serials[remote], case .unbound(domain) = domains[serial]?.ports[port]?.peer else {
            return false
        }
        return true
    }

    private mutating func insert(_ port: Port, of id: UInt64) throws(Errno) -> UInt32 {
        guard let serial = sessions[id]?.serial, let domain = domains[serial] else { throw .noSuchProcess }
        var number: UInt32 = 1
        while domain.ports[number] != nil { number += 1 }
        // public/event_channel.h: 1023 usable ports with the 2-level ABI of 32-bit domains; 4095 with 64 bits.
        guard number < 4096 else { throw .noSpace }
        domains[serial]?.ports[number] = port
        sessions[id]?.ports.insert(number)
        return number
    }

    /// A port whose process is dead and which the kernel has not closed yet.
    struct DeadPort: Sendable {
        let serial: UInt64
        let number: UInt32
        let end: ContinuousClock.Instant
    }

    /// The ports of a connection that ends stay bound for a while. A killed process's `/dev/xen/evtchn` is closed by the
    /// last who refers to it, and io_uring, which polls it, lets go in a work item of its own: with Linux 6.18 that was
    /// 4 … 19 ms after the parent had learnt of the death.
    mutating func keepPorts(of id: UInt64) {
        guard portReleaseDelay > .zero, let session = sessions[id] else { return }
        let end = ContinuousClock.now + portReleaseDelay
        boundByTheDead += session.ports.map { DeadPort(serial: session.serial, number: $0, end: end) }
        sessions[id]?.ports = []
    }

    /// Closes the ports of the dead whose time has come: to be called by whoever looks at ports.
    mutating func releaseDeadPorts() {
        guard !boundByTheDead.isEmpty else { return }
        let now = ContinuousClock.now
        for port in boundByTheDead where port.end <= now { closePort(port.number, of: port.serial) }
        boundByTheDead.removeAll { $0.end <= now }
    }

    mutating func closePort(_ number: UInt32, by id: UInt64) throws(Errno) {
        guard let session = sessions[id], session.ports.contains(number) else { throw .invalidArgument }
        closePort(number, of: session.serial)
    }

    /// The other end becomes unbound for the same domain and can be bound again.
    mutating func closePort(_ number: UInt32, of serial: UInt64) {
        guard let domain = domains[serial], let port = domain.ports[number] else { return }
        domains[serial]?.ports[number] = nil
        for session in sessions.values where session.serial == serial { sessions[session.id]?.ports.remove(number) }
        guard case .bound(let peerSerial, let peerPort) = port.peer else { return }
        domains[peerSerial]?.ports[peerPort]?.peer = .unbound(domain.id)
    }
}
