// A Xen host without Xen, as seen from one domain: memfd pages, eventfd ports and a XenStore over a Unix socket.

public import Hypervisor
internal import SystemPackage
public import XenWire

/// One domain's view of a `SimulatedMachine`, in its process or in another.
///
/// What it does **not** imitate; a bug found on real Xen joins this list or becomes a test:
/// - Isolation. Every attached process could reach every domain's memory; only the protocols' calls check grants.
///   Whoever reaches the machine's socket may claim to be any domain.
/// - A revocation does not wait for a copy under way, and a copy does not set `GTF_reading`/`GTF_writing`; a mapped
///   grant cannot be revoked, but its page may be given back by its owner (it stays the mapper's until unmapped).
/// - gntdev's asynchronous unmapping, pages pinned by direct I/O into mapped grants, limits of grant frames and
///   maptrack entries, transitive and sub-page grants, grant table version 2.
/// - The cost of anything: hypercalls, TLB flushes, the notification's trip through the hypervisor, scheduling.
/// - Event channels beyond interdomain ones: no VIRQs, no FIFO priorities, no loss when a port is closed mid-flight.
/// - xenstored's restart, its fairness, memory quotas and the delays of real watch events. Coalescing is perfect: a watch is
///   pending once, whereas xenstored queues every event. Errors agree with Xen 4.17's C xenstored, not with oxenstored.
/// - Cards' interrupts beyond who may have which: none is ever sent, none bound. That a card's memory is switched off, which
///   Xen answers with ENXIO, the machine does not know. It is harsher than Xen with a row mapped twice, and with MSI beside
///   MSI-X: EEXIST.
/// - Domain life cycle beyond existing or not: no pause, save, migration, shutdown reason or suspend.
public final class SimulatedHypervisor: Hypervisor {
    private let connect: @Sendable () throws(Errno) -> MachineSocket
    private let link: MachineLink
    private let simulatedGrants: SimulatedGrants
    private let simulatedStore: SimulatedStore
    private let simulatedDomains: SimulatedDomains
    private let simulatedInterrupts: SimulatedInterrupts

    public var domains: any DomainControl { simulatedDomains }
    public var grants: any GrantTable { simulatedGrants }
    public var sharing: any GrantSharing { simulatedGrants }
    public var store: any XenStore { simulatedStore }
    public var interrupts: any GuestInterrupts { simulatedInterrupts }

    /// Attaches to a machine of another process that listens at `path`.
    /// - Throws: `ENOENT`/`ECONNREFUSED` if nobody listens, `ESRCH` if there is no such domain.
    public convenience init(attaching path: String, as domain: DomainID) throws(HypervisorFailure) {
        try self.init(as: domain) { () throws(Errno) in try MachineSocket.connected(to: path) }
    }

    init(
        as domain: DomainID,
        connecting connect: @escaping @Sendable () throws(Errno) -> MachineSocket
    ) throws(HypervisorFailure) {
        self.connect = connect
        link = try Self.makeLink(connect, as: domain)
        simulatedGrants = SimulatedGrants(link: link)
        simulatedDomains = SimulatedDomains(link: link)
        simulatedInterrupts = SimulatedInterrupts(link: link)
        simulatedStore = try SimulatedStore(link: Self.makeLink(connect, as: domain))
    }

    private static func makeLink(
        _ connect: () throws(Errno) -> MachineSocket,
        as domain: DomainID
    ) throws(HypervisorFailure) -> MachineLink {
        let socket: MachineSocket
        do throws(Errno) { socket = try connect() } catch {
            throw HypervisorFailure("connect to the simulated machine", error)
        }
        return try MachineLink(over: socket, as: domain)
    }

    public func openEventChannels() throws(HypervisorFailure) -> any EventChannels {
        try SimulatedEventChannels(link: Self.makeLink(connect, as: link.domain))
    }

    /// Adds faults to the machine's plan; see `FaultPlan`.
    public func inject(_ plan: FaultPlan) throws(HypervisorFailure) {
        try link.call(.inject, "inject faults") { message in
            message.put(UInt32(truncatingIfNeeded: plan.rules.count))
            for rule in plan.rules { rule.encode(to: &message) }
        }
    }

    /// Ends all faults.
    public func clearFaults() throws(HypervisorFailure) { try link.call(.clearFaults, "clear faults") }

    /// Ends one grant of ours whose pages we keep: what a hostile or broken frontend does in mid-flight.
    /// - Throws: `EBUSY` while the page is mapped, `ENOENT` if it is not ours.
    public func revoke(_ reference: GrantReference) throws(HypervisorFailure) {
        try link.call(.revoke, "revoke grant \(reference.rawValue)") { $0.put(reference.rawValue) }
    }

    /// Calls `body`, on a thread of its own, when the machine is gone: nothing works any more then.
    public func whenMachineEnds(_ body: @escaping @Sendable () -> Void) throws(HypervisorFailure) {
        let link = link
        do throws(Errno) {
            try startThread {
                link.waitForEnd()
                body()
            }
        } catch {
            throw HypervisorFailure("watch the machine", error)
        }
    }

    /// Ends the connections for grants and XenStore as the death of this process would; ports die with their sets.
    public func disconnect() {
        link.shutDown()
        simulatedStore.disconnect()
    }
}

/// The domains that exist.
final class SimulatedDomains: DomainControl {
    private let link: MachineLink
    init(link: MachineLink) { self.link = link }

    var own: DomainID { link.domain }

    func identity(of domain: DomainID) throws(HypervisorFailure) -> DomainIdentity? {
        let text = try link.call(.identity, "identity of domain \(domain)") {
            $0.put(domain.rawValue)
        } read: { (answer, _) throws(Errno) in
            try answer.text()
        }
        return text.isEmpty ? nil : DomainIdentity(text)
    }
}
