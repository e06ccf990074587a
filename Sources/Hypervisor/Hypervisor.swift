// The hypervisor as the rest of the house sees it: five capabilities behind one protocol.

public import XenWire

/// What distinguishes a domain from a later one with the same number: its UUID, as the toolstack wrote it, or, where the
/// toolstack hides it from us, the number.
public struct DomainIdentity: Hashable, Sendable, CustomStringConvertible {
    public let text: String
    public init(_ text: String) { self.text = text }
    public var description: String { text }

    /// From the node `vm` of a domain's home, `/vm/<UUID>` (docs/misc/xenstore-paths.pandoc).
    /// - Returns: nil if the node is missing or malformed.
    public init?(vm node: String?) {
        guard let name = node?.split(separator: "/").last, name.utf8.count <= 64,
            name.utf8.allSatisfy({ $0 > UInt8(ascii: " ") && $0 < 0x7F })
        else { return nil }
        self.init(String(name))
    }

    /// For a domain whose UUID we may not read (other homes are hidden from a driver domain) or that has none (domain
    /// 0). Reuse of the number shows in `@releaseDomain`, and in the toolstack's removal of the backend's directories.
    public init(numberOf domain: DomainID) { self.init("domain \(domain)") }
}

/// What is known about other domains. Safe to use from several threads.
public protocol DomainControl: AnyObject, Sendable {
    /// The domain we run in.
    var own: DomainID { get }
    /// nil if there is no such domain, or it is dead and only waits for its pages to be given back (our own mappings
    /// of them can keep it so for as long as we like), or the toolstack has removed its home, as it does just before.
    ///
    /// May wait for xenstored: not for a loop's thread, nor for the body of a store's operation.
    func identity(of domain: DomainID) throws(HypervisorFailure) -> DomainIdentity?
}

/// A Xen host, real or simulated, as seen from one domain.
public protocol Hypervisor: AnyObject, Sendable {
    var domains: any DomainControl { get }
    var grants: any GrantTable { get }
    /// The frontend's half of grants.
    var sharing: any GrantSharing { get }
    var store: any XenStore { get }
    /// The interrupts of cards that guests have.
    var interrupts: any GuestInterrupts { get }
    /// A fresh set of ports, for one loop.
    func openEventChannels() throws(HypervisorFailure) -> any EventChannels
}
