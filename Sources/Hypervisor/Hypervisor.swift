// The hypervisor as the rest of the house sees it: four capabilities behind one protocol.

public import XenWire

/// What distinguishes a domain from a later one with the same number: its UUID (`xen_domain_handle_t`, 16 bytes, in
/// text) or, where the toolstack hides it from us, the best substitute the implementation has.
public struct DomainIdentity: Hashable, Sendable, CustomStringConvertible {
    public let text: String
    public init(_ text: String) { self.text = text }
    public var description: String { text }
}

/// What is known of other domains. Safe to use from several threads.
public protocol DomainControl: AnyObject, Sendable {
    /// The domain we run in.
    var own: DomainID { get }
    /// nil if there is no such domain, or it is dead and only waits for its pages to be given back.
    func identity(of domain: DomainID) throws(HypervisorFailure) -> DomainIdentity?
}

/// A Xen host, real or simulated, as seen from one domain.
public protocol Hypervisor: AnyObject, Sendable {
    var domains: any DomainControl { get }
    var grants: any GrantTable { get }
    /// The frontend's half of grants.
    var sharing: any GrantSharing { get }
    var store: any XenStore { get }
    /// A fresh set of ports, for one loop.
    func openEventChannels() throws(HypervisorFailure) -> any EventChannels
}
