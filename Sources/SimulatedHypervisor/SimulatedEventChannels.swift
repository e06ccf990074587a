// A set of event channel ports: eventfds behind one epoll descriptor, each armed once until unmasked.

internal import CLinux
internal import Glibc
internal import Hypervisor
internal import Synchronization
internal import SystemPackage
internal import XenWire

final class SimulatedEventChannels: EventChannels {
    private struct Ends: Sendable {
        let inbound: Descriptor
        let outbound: Descriptor
    }

    private let link: MachineLink
    private let epoll: Descriptor
    private let ports = Mutex<[UInt32: Ends]>([:])

    init(link: MachineLink) throws(HypervisorFailure) {
        self.link = link
        do throws(Errno) {
            epoll = try Descriptor(checking: epoll_create1(CInt(EPOLL_CLOEXEC)))
        } catch {
            throw HypervisorFailure("open event channels", error)
        }
    }

    // The machine closes all ports when the connection ends.
    deinit { link.shutDown() }

    var descriptor: CInt { epoll.raw }

    func bind(to port: EventChannelPort, of domain: DomainID) throws(HypervisorFailure) -> EventChannelPort {
        try add(.bind, "bind port \(port.rawValue) of domain \(domain)") { message in
            message.put(domain.rawValue)
            message.put(port.rawValue)
        }
    }

    func allocate(for domain: DomainID) throws(HypervisorFailure) -> EventChannelPort {
        try add(.allocate, "allocate a port for domain \(domain)") { $0.put(domain.rawValue) }
    }

    private func add(
        _ call: SimulatedCall,
        _ operation: String,
        _ arguments: (inout MessageWriter) -> Void
    ) throws(HypervisorFailure) -> EventChannelPort {
        let (number, ends) = try link.call(call, operation, arguments) { (answer, descriptors) throws(Errno) in
            guard descriptors.count == 2 else { throw .badMessage }
            return (try answer.integer(UInt32.self), Ends(inbound: descriptors[0], outbound: descriptors[1]))
        }
        ports.withLock { $0[number] = ends }
        guard arm(EPOLL_CTL_ADD, number, ends) else {
            let failure = Errno(rawValue: errno)
            unbind(EventChannelPort(number))
            throw HypervisorFailure(operation, failure)
        }
        return EventChannelPort(number)
    }

    private func arm(_ operation: CInt, _ number: UInt32, _ ends: Ends) -> Bool {
        var event = unsafe epoll_event()
        unsafe event.events = EPOLLIN.rawValue | EPOLLONESHOT.rawValue
        unsafe event.data.u32 = number
        return unsafe epoll_ctl(epoll.raw, operation, ends.inbound.raw, &event) == 0
    }

    func unbind(_ port: EventChannelPort) {
        guard let ends = ports.withLock({ $0.removeValue(forKey: port.rawValue) }) else { return }
        _ = epoll_ctl(epoll.raw, EPOLL_CTL_DEL, ends.inbound.raw, nil)
        try? link.call(.unbind, "unbind port \(port.rawValue)") { $0.put(port.rawValue) }
    }

    func takePending() -> EventChannelPort? {
        var event = unsafe epoll_event()
        while unsafe epoll_wait(epoll.raw, &event, 1, 0) == 1 {
            let number = unsafe event.data.u32
            guard let ends = ports.withLock({ $0[number] }) else { continue }
            // One-shot: epoll forgot the port, so it stays masked until unmask arms it again.
            ends.inbound.drain()
            return EventChannelPort(number)
        }
        return nil
    }

    func unmask(_ port: EventChannelPort) {
        guard let ends = ports.withLock({ $0[port.rawValue] }) else { return }
        _ = arm(EPOLL_CTL_MOD, port.rawValue, ends)
    }

    func notify(_ port: EventChannelPort) {
        ports.withLock { $0[port.rawValue] }?.outbound.signal()
    }
}
