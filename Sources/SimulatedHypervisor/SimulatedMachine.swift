// The simulated machine: what a test or the demo holds, and what other processes attach to.

public import Hypervisor
internal import Synchronization
internal import SystemPackage
public import XenWire

/// A Xen host in memory: a XenStore, domains with memory and grant tables, event channels. What it does not imitate is
/// listed at `SimulatedHypervisor`.
///
/// Domain 0 exists from the start. Thread-safe. When it goes, connections end and calls on them fail.
public final class SimulatedMachine: Sendable {
    private let core = MachineCore()

    /// - Throws: what creating domain 0's memory throws.
    public init(quota: XenStoreQuota = XenStoreQuota()) throws(HypervisorFailure) {
        core.state.withLock { $0.tree.quota = quota }
        try createDomain(.initial, privileged: true)
    }

    deinit { core.shutDown() }

    /// Creates a domain with its home in XenStore, and fires `@introduceDomain`.
    /// - Parameter privileged: may do all in XenStore, as dom0 may.
    /// - Throws: `EEXIST` if there is one of this number.
    public func createDomain(_ domain: DomainID, privileged: Bool = false) throws(HypervisorFailure) {
        try run("create domain \(domain)") { (state) throws(Errno) in
            try state.createDomain(domain, privileged: privileged)
        }
    }

    /// Destroys a domain as a crash or `xl destroy` does: its connections and ports die, its grants end, pages others map
    /// stay theirs, `@releaseDomain` fires. Its nodes in XenStore stay for the toolstack to remove.
    /// - Throws: `ESRCH` if there is none.
    public func destroyDomain(_ domain: DomainID) throws(HypervisorFailure) {
        try run("destroy domain \(domain)") { (state) throws(Errno) in try state.destroyDomain(domain) }
    }

    /// The machine as seen from `domain`, for use in this process. The same code as from another process.
    public func hypervisor(for domain: DomainID) throws(HypervisorFailure) -> SimulatedHypervisor {
        try SimulatedHypervisor(as: domain) { [core] () throws(Errno) in
            let (ours, theirs) = try MachineSocket.pair()
            try core.serve(theirs)
            return ours
        }
    }

    /// Lets other processes attach at a Unix socket; see `SimulatedHypervisor(attaching:as:)`. Whoever reaches the socket
    /// may be any domain.
    public func listen(at path: String) throws(HypervisorFailure) {
        do throws(Errno) { try core.listen(at: path) } catch { throw HypervisorFailure("listen at \(path)", error) }
    }

    /// Replaces the faults to come.
    public func setFaults(_ plan: FaultPlan) { core.state.withLock { $0.setFaults(plan) } }

    /// How long a connection's ports stay bound after its death, unless it is told otherwise: a successor's bind answers
    /// EINVAL until then, as Xen's does until the kernel has closed a dead process's `/dev/xen/evtchn`.
    public static let defaultPortReleaseDelay = Duration.milliseconds(20)

    /// Sets how long the ports of connections that end from now on stay bound.
    public func setPortReleaseDelay(_ delay: Duration) { core.state.withLock { $0.portReleaseDelay = delay } }

    /// Makes xenstored silent for `duration` from now on; calls wait meanwhile.
    public func silenceStore(for duration: Duration) { core.silenceStore(for: duration) }

    /// What a domain holds, for tests that look for leaks; nil if there is no such domain.
    public func usage(of domain: DomainID) -> SimulatedUsage? {
        core.state.withLock { state in
            state.releaseDeadPorts()
            guard let serial = state.serials[domain], let entry = state.domains[serial] else { return nil }
            let sessions = state.sessions.values.filter { $0.serial == serial }
            return SimulatedUsage(
                ports: entry.ports.count,
                grantedPages: entry.grants.values.count { !$0.revoked },
                pagesMappedByOthers: entry.mappedPages,
                nodes: state.tree.ownedNodes(of: domain),
                watches: sessions.reduce(0) { $0 + $1.watches.count },
                transactions: sessions.reduce(0) { $0 + $1.transactions.count },
                connections: sessions.count
            )
        }
    }

    func change<Result>(_ body: (inout MachineState) -> Result) -> Result { core.state.withLock { body(&$0) } }

    private func run(
        _ operation: String,
        _ body: (inout MachineState) throws(Errno) -> Void
    ) throws(HypervisorFailure) {
        do throws(Errno) {
            try core.state.withLock { (state) throws(Errno) in try body(&state) }
        } catch {
            throw HypervisorFailure(operation, error)
        }
    }
}

/// What one domain holds of the machine.
public struct SimulatedUsage: Sendable, Equatable {
    public var ports: Int
    /// Pages granted and not revoked.
    public var grantedPages: Int
    /// Mappings that other domains hold of this domain's pages, one for each page and mapping.
    public var pagesMappedByOthers: Int
    /// XenStore nodes the domain owns.
    public var nodes: Int
    public var watches: Int
    public var transactions: Int
    public var connections: Int
}
