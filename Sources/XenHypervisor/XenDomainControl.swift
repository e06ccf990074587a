// What is known of other domains: libxenctrl where we may ask, and a hypercall that everybody may make.

internal import CXen
internal import Glibc
public import Hypervisor
internal import Synchronization
internal import SystemPackage
public import XenWire

/// Domains, as Xen and xenstored know them.
public final class XenDomainControl: DomainControl {
    public let own: DomainID
    private let control: Mutex<ControlInterface>

    /// - Throws: what could not be opened, and what to do about it.
    init(own: DomainID) throws(HypervisorFailure) {
        self.own = own
        control = Mutex(try ControlInterface(required: own == .initial))
    }

    public func identity(of domain: DomainID) throws(HypervisorFailure) -> DomainIdentity? {
        try control.withLock { (control) throws(HypervisorFailure) in try control.identity(of: domain) }
    }
}

/// `/dev/xen/privcmd`, and one event channel handle to ask with where privcmd's answer is no.
@safe
private struct ControlInterface: ~Copyable, @unchecked Sendable {
    // SAFETY: both are used under the Mutex that holds this struct, and closed once, in deinit.
    private let privileged: OpaquePointer?
    private let events: OpaquePointer

    /// - Parameter required: a driver domain does without privcmd, which would answer no anyway.
    init(required: Bool) throws(HypervisorFailure) {
        let privileged = unsafe xc_interface_open(XenLogger.quiet, XenLogger.quiet, 0)
        if required, unsafe privileged == nil {
            throw .opening("/dev/xen/privcmd", or: "load the kernel module xen-privcmd", Errno(rawValue: errno))
        }
        guard let events = unsafe xenevtchn_open(XenLogger.quiet, 0) else {
            let error = Errno(rawValue: errno)
            if let privileged = unsafe privileged { unsafe xc_interface_close(privileged) }
            throw .opening("/dev/xen/evtchn", or: "load the kernel module xen-evtchn", error)
        }
        unsafe self.privileged = privileged
        unsafe self.events = events
    }

    deinit {
        unsafe xenevtchn_close(events)
        if let privileged = unsafe privileged { unsafe xc_interface_close(privileged) }
    }

    func identity(of domain: DomainID) throws(HypervisorFailure) -> DomainIdentity? {
        guard let privileged = unsafe privileged else { return try substitute(for: domain) }
        var found = xc_dominfo_t()
        let count = unsafe xc_domain_getinfo(privileged, UInt32(domain.rawValue), 1, &found)
        guard count >= 0 else {
            let error = Errno(rawValue: errno)
            switch error {
            case .noSuchProcess: return nil
            case .notPermitted, .permissionDenied: return try substitute(for: domain)
            default: throw HypervisorFailure("look up domain \(domain)", error)
            }
        }
        // Asked for one that is not there, Xen names the next one.
        guard count == 1, found.domid == UInt32(domain.rawValue), found.dying == 0 else { return nil }
        let handle = unsafe withUnsafeBytes(of: found.handle) { unsafe Array($0) }
        return DomainIdentity(ControlInterface.text(ofHandle: handle))
    }

    /// A driver domain may not ask for the UUID: the number has to do. That another domain came under the same number
    /// is told by @releaseDomain, and by the toolstack's removal of our directories.
    private func substitute(for domain: DomainID) throws(HypervisorFailure) -> DomainIdentity? {
        try exists(domain) ? DomainIdentity("domain \(domain)") : nil
    }

    /// Port 0 is never there to be bound: EINVAL if the domain exists, ESRCH if it does not
    /// (xen/common/event_channel.c, evtchn_bind_interdomain).
    private func exists(_ domain: DomainID) throws(HypervisorFailure) -> Bool {
        let port = unsafe xenevtchn_bind_interdomain(events, UInt32(domain.rawValue), 0)
        if port >= 0 {
            unsafe xenevtchn_unbind(events, UInt32(port))
            return true
        }
        let error = Errno(rawValue: errno)
        switch error {
        case .noSuchProcess: return false
        case .invalidArgument, .permissionDenied, .notPermitted: return true
        default: throw HypervisorFailure("look for domain \(domain)", error)
        }
    }

    /// As the toolstack writes a UUID: `01234567-89ab-cdef-0123-456789abcdef`.
    private static func text(ofHandle handle: [UInt8]) -> String {
        let digits = Array("0123456789abcdef".utf8)
        var text: [UInt8] = []
        for (index, byte) in handle.enumerated() {
            if [4, 6, 8, 10].contains(index) { text.append(UInt8(ascii: "-")) }
            text += [digits[Int(byte >> 4)], digits[Int(byte & 15)]]
        }
        return String(decoding: text, as: UTF8.self)
    }
}
