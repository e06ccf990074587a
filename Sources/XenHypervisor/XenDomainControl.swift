// Other domains: according to xenstored and the toolstack, or to Xen where those give no information.

internal import CXen
internal import Glibc
internal import HostIO
public import Hypervisor
internal import Synchronization
internal import SystemPackage
public import XenWire

/// Domains, as xenstored knows them; in a driver domain, which cannot ask xenstored about others, as Xen does.
///
/// The hypercalls about other domains need libxenctrl, whose soname changes with each Xen release, and a driver domain
/// may not make them. Any domain may bind event channels.
public final class XenDomainControl: DomainControl {
    public var own: DomainID { store.own }
    private let store: XenStoreClient
    private let exists: @Sendable (DomainID) throws(HypervisorFailure) -> Bool

    /// - Parameter exists: whether Xen has such a domain, living or not yet given back.
    init(
        store: XenStoreClient,
        exists: @escaping @Sendable (DomainID) throws(HypervisorFailure) -> Bool = PortProbe.exists
    ) {
        self.store = store
        self.exists = exists
    }

    public func identity(of domain: DomainID) throws(HypervisorFailure) -> DomainIdentity? {
        do throws(HypervisorFailure) {
            return try store.wait { (core) throws(HypervisorFailure) in
                try XenDomainControl.identity(of: domain, StoreOperations(core))
            }
        } catch  where error.errno == .permissionDenied {
            // Unprivileged. Of others only the number is known; our own home can be read.
            guard try exists(domain) else { return nil }
            return try store.wait { (core) throws(HypervisorFailure) in
                DomainIdentity(vm: try StoreOperations(core).read("/local/domain/\(domain)/vm"))
            } ?? DomainIdentity(numberOf: domain)
        }
    }

    /// The toolstack introduces a domain before it writes the first device, removes its home when all devices are gone,
    /// and destroys it then; a domain that is dying is not introduced any more (tools/libs/light/libxl_domain.c,
    /// devices_destroy_cb; tools/xenstored/domain.c, check_domain).
    /// - Throws: `EACCES` to everybody but privileged domains.
    private static func identity(
        of domain: DomainID,
        _ store: StoreOperations
    ) throws(HypervisorFailure) -> DomainIdentity? {
        guard try store.isIntroduced(domain) else { return nil }
        let home = "/local/domain/\(domain)"
        if let identity = DomainIdentity(vm: try store.read("\(home)/vm")) { return identity }
        return try store.directory(home) == nil ? nil : DomainIdentity(numberOf: domain)
    }
}

/// Asks Xen for a domain by a bind that never succeeds.
enum PortProbe {
    /// Port 0 is never there to be bound: EINVAL if the domain exists, ESRCH if it does not
    /// (xen/common/event_channel.c, evtchn_bind_interdomain).
    ///
    /// A domain that is dying exists until the last mapping of its pages is gone, and that may be ours: so whoever maps
    /// its pages must never wait for it to be gone.
    static func exists(_ domain: DomainID) throws(HypervisorFailure) -> Bool {
        guard let events = unsafe HostDoor.enter(.eventChannels, { unsafe xenevtchn_open(XenLogger.quiet, 0) }) else {
            throw .opening("/dev/xen/evtchn", or: "load the kernel module xen-evtchn", Errno(rawValue: errno))
        }
        defer { unsafe xenevtchn_close(events) }
        // A port that was bound after all is closed with the handle.
        guard unsafe xenevtchn_bind_interdomain(events, UInt32(domain.rawValue), 0) < 0 else { return true }
        return try exists(domain, Errno(rawValue: errno))
    }

    static func exists(_ domain: DomainID, _ error: Errno) throws(HypervisorFailure) -> Bool {
        switch error {
        case .noSuchProcess: false
        // A security module may forbid the bind, for a domain that exists.
        case .invalidArgument, .permissionDenied, .notPermitted: true
        default: throw HypervisorFailure("look for domain \(domain)", error)
        }
    }
}
