// What is known of other domains: what xenstored and the toolstack say of them.

public import Hypervisor
internal import SystemPackage
public import XenWire

/// Domains, as xenstored knows them.
///
/// No hypercall: those that tell of other domains belong to libxenctrl, whose soname is the Xen release, and a driver
/// domain may make none of them.
public final class XenDomainControl: DomainControl {
    public var own: DomainID { store.own }
    private let store: XenStoreClient

    init(store: XenStoreClient) { self.store = store }

    public func identity(of domain: DomainID) throws(HypervisorFailure) -> DomainIdentity? {
        try store.wait { (core) throws(HypervisorFailure) in
            try XenDomainControl.identity(of: domain, StoreOperations(core))
        }
    }

    /// The toolstack introduces a domain before it writes the first device, removes its home when all devices are gone,
    /// and destroys it then; a domain that is dying is not introduced any more (tools/libs/light/libxl_domain.c,
    /// devices_destroy_cb; tools/xenstored/domain.c, check_domain).
    private static func identity(
        of domain: DomainID,
        _ store: StoreOperations
    ) throws(HypervisorFailure) -> DomainIdentity? {
        guard try store.isIntroduced(domain) else { return nil }
        let home = "/local/domain/\(domain)"
        if let identity = DomainIdentity(vm: try store.read("\(home)/vm")) { return identity }
        do throws(HypervisorFailure) {
            return try store.directory(home) == nil ? nil : DomainIdentity(numberOf: domain)
        } catch  where error.errno == .permissionDenied {
            return DomainIdentity(numberOf: domain)
        }
    }
}
