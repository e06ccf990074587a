// Event channels: libxenevtchn over /dev/xen/evtchn, one descriptor for each set.

internal import CXen
internal import Glibc
internal import HostIO
public import Hypervisor
internal import SystemPackage
public import XenWire

/// One set of ports. Its loop is the only caller, but for `notify`.
// SAFETY: `handle` and `descriptor` never change; `pending` and `ports` are touched by the owning loop only
// (EventChannels' contract), and `notify` touches neither.
@safe
public final class XenEventChannels: EventChannels, @unchecked Sendable {
    public let descriptor: CInt
    private let handle: OpaquePointer
    /// Ports of this set. The driver may still report one that was unbound a moment ago.
    private var ports: Set<EventChannelPort> = []
    /// Read from the driver and not yet taken, last first.
    private var pending: [UInt32] = []
    /// The last read returned everything the driver had, so the next read can be skipped.
    private var isDrained = false
    private var buffer = [UInt32](repeating: 0, count: 64)

    /// - Throws: what could not be opened, and what to do about it.
    public init() throws(HypervisorFailure) {
        guard let opened = unsafe HostDoor.enter(.eventChannels, { unsafe xenevtchn_open(XenLogger.quiet, 0) }) else {
            throw .opening("/dev/xen/evtchn", or: "load the kernel module xen-evtchn", Errno(rawValue: errno))
        }
        unsafe handle = opened
        descriptor = unsafe xenevtchn_fd(opened)
        _ = fcntl(descriptor, F_SETFL, O_NONBLOCK)
    }

    deinit { unsafe xenevtchn_close(handle) }

    /// As Xen does, this leaves the new port pending once: a notification may have been lost while it was unbound.
    public func bind(
        to port: EventChannelPort,
        of domain: DomainID
    ) throws(HypervisorFailure) -> EventChannelPort {
        let own = unsafe xenevtchn_bind_interdomain(handle, UInt32(domain.rawValue), port.rawValue)
        return try added(own) { "bind to event channel \(port.rawValue) of domain \(domain)" }
    }

    public func allocate(for domain: DomainID) throws(HypervisorFailure) -> EventChannelPort {
        let own = unsafe xenevtchn_bind_unbound_port(handle, UInt32(domain.rawValue))
        return try added(own) { "allocate an event channel for domain \(domain)" }
    }

    public func unbind(_ port: EventChannelPort) {
        guard ports.remove(port) != nil else { return }
        pending.removeAll { $0 == port.rawValue }
        unsafe xenevtchn_unbind(handle, port.rawValue)
    }

    public func takePending() -> EventChannelPort? {
        while true {
            while let number = pending.popLast() {
                let port = EventChannelPort(number)
                if ports.contains(port) { return port }
            }
            if isDrained || !readPending() {
                isDrained = false
                return nil
            }
        }
    }

    public func unmask(_ port: EventChannelPort) { unsafe xenevtchn_unmask(handle, port.rawValue) }

    public func notify(_ port: EventChannelPort) { unsafe xenevtchn_notify(handle, port.rawValue) }

    /// Reads all pending ports at once: `xenevtchn_pending` would make a system call for each and one more for none.
    private func readPending() -> Bool {
        let size = MemoryLayout<UInt32>.size
        // SAFETY: the driver writes whole port numbers, no more than fit (drivers/xen/evtchn.c, evtchn_read).
        let count = unsafe buffer.withUnsafeMutableBytes { unsafe read(descriptor, $0.baseAddress, $0.count) } / size
        guard count > 0 else { return false }
        for index in (0..<count).reversed() { pending.append(buffer[index]) }
        isDrained = count < buffer.count
        return true
    }

    private func added(
        _ result: xenevtchn_port_or_error_t,
        _ attempt: () -> String
    ) throws(HypervisorFailure) -> EventChannelPort {
        guard let number = UInt32(exactly: result) else { throw HypervisorFailure(attempt(), Errno(rawValue: errno)) }
        let port = EventChannelPort(number)
        ports.insert(port)
        return port
    }
}
