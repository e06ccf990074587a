// Everything the simulated machine knows: domains, connections, and what dies with either.

internal import Hypervisor
internal import SystemPackage
internal import XenWire

/// The machine as one value behind one lock.
struct MachineState: Sendable {
    /// A domain, living or still mapped by others. `serial` tells it from earlier and later domains of the same number.
    struct Domain: Sendable {
        let id: DomainID
        let serial: UInt64
        let privileged: Bool
        let memory: DomainMemory
        var grants: [UInt32: Grant] = [:]
        var shares: [UInt64: Share] = [:]
        var freeReferences: [UInt32] = []
        var nextReference = DomainMemory.firstReference
        /// Runs of frames given back, by their length.
        var freeRuns: [Int: [UInt32]] = [:]
        var nextFrame: UInt32 = 1
        var ports: [UInt32: Port] = [:]
        /// Mappings others hold of this domain's pages.
        var mappedPages = 0
        /// By number.
        var interrupts: [UInt32: MessageInterrupt] = [:]

        var caller: StoreCaller { StoreCaller(domain: id, privileged: privileged) }
    }

    /// One connection: what it holds is given back when it ends, as the kernel does for a process.
    struct Session: Sendable {
        let id: UInt64
        let serial: UInt64
        let caller: StoreCaller
        let socket: MachineSocket
        /// Readable when a watch fired.
        let watchEvent: Descriptor
        var watches: [UInt64: String] = [:]
        var pending: [UInt64] = []
        var transactions: [UInt32: XenStoreTransaction] = [:]
        var ports: Set<UInt32> = []
        var mappings: [UInt32: Mapping] = [:]
        var shares: Set<UInt64> = []
        var nextNumber: UInt32 = 1
    }

    var tree = XenStoreTree()
    /// By serial.
    var domains: [UInt64: Domain] = [:]
    /// The living domain of a number.
    var serials: [DomainID: UInt64] = [:]
    var sessions: [UInt64: Session] = [:]
    var faults = FaultPlan()
    /// How long the ports of a dead connection stay bound.
    var portReleaseDelay = SimulatedMachine.defaultPortReleaseDelay
    var cards: [PCIAddress: Card] = [:]
    /// Interrupts that a domain may have.
    var interruptLimit = MachineState.defaultInterruptLimit
    /// Ports of dead connections that are still bound, and until when.
    var boundByTheDead: [DeadPort] = []
    private var lastSerial: UInt64 = 0

    mutating func nextSerial() -> UInt64 {
        lastSerial += 1
        return lastSerial
    }

    // MARK: domains

    mutating func createDomain(_ id: DomainID, privileged: Bool) throws(Errno) {
        guard serials[id] == nil else { throw .fileExists }
        let serial = nextSerial()
        let memory = try DomainMemory.make(named: "domain-\(id)")
        memory.hasCopyFaults = faults.touchesCopies
        domains[serial] = Domain(
            id: id,
            serial: serial,
            privileged: privileged,
            memory: memory
        )
        serials[id] = serial
        try makeHome(of: id)
        fireSpecial("@introduceDomain")
    }

    /// What libxl__domain_make writes, as far as frontends and backends look at it.
    private mutating func makeHome(of id: DomainID) throws(Errno) {
        let machine = StoreCaller(domain: .initial, privileged: true)
        let home = "/local/domain/\(id)"
        let readable = [XenStorePermission(.initial, .none), XenStorePermission(id, .read)]
        let writable = [XenStorePermission(id, .none)]
        var changes: [XenStoreChange] = []
        // xen-init-dom0 gives domain 0 no `vm`.
        let uuid = id == .initial ? [] : [("/vm", "/vm/\(MachineState.randomUUID())", readable)]
        for (path, value, permissions) in [
            ("", "", readable), ("/domid", "\(id)", readable), ("/name", "domain-\(id)", readable),
            ("/device", "", readable), ("/control", "", readable), ("/control/shutdown", "", writable),
            ("/data", "", writable), ("/drivers", "", writable), ("/feature", "", writable),
            ("/attr", "", writable), ("/error", "", writable),
        ] + uuid {
            changes += try tree.write(home + path, Array(value.utf8), as: machine)
            changes += try tree.setPermissions(home + path, permissions, as: machine)
        }
        fire(changes)
    }

    private static func randomUUID() -> String {
        let digits = (0..<32).map { _ in String(Int.random(in: 0...15), radix: 16) }
        return [0..<8, 8..<12, 12..<16, 16..<20, 20..<32].map { digits[$0].joined() }.joined(separator: "-")
    }

    /// As `XenDomainControl` finds it: a privileged caller is told by xenstored whom it knows, and that a home is gone;
    /// anybody else only by Xen whether there is a domain of that number, living or dead and not yet given back.
    func identity(of domain: DomainID, for caller: StoreCaller) throws(Errno) -> DomainIdentity? {
        let home = "/local/domain/\(domain)"
        if caller.privileged {
            guard serials[domain] != nil, tree.nodes[home] != nil else { return nil }
        } else {
            guard domains.values.contains(where: { $0.id == domain }) else { return nil }
        }
        do throws(Errno) {
            let node = try tree.read("\(home)/vm", as: caller)
            return DomainIdentity(vm: String(validating: node, as: UTF8.self)) ?? DomainIdentity(numberOf: domain)
        } catch {
            guard error == .permissionDenied || error == .noSuchFileOrDirectory else { throw error }
            return DomainIdentity(numberOf: domain)
        }
    }

    mutating func destroyDomain(_ id: DomainID) throws(Errno) {
        guard let serial = serials.removeValue(forKey: id), let domain = domains[serial] else { throw .noSuchProcess }
        domain.memory.isDead = true
        releaseCards(of: serial)
        for port in domain.ports.keys { closePort(port, of: serial) }
        for session in sessions.values where session.serial == serial { release(session.id) }
        tree.disown(id)
        dropIfUnused(serial)
        fireSpecial("@releaseDomain")
    }

    /// Forgets a dead domain once nobody maps its pages.
    mutating func dropIfUnused(_ serial: UInt64) {
        guard let domain = domains[serial], serials[domain.id] != serial, domain.mappedPages == 0 else { return }
        domains[serial] = nil
    }

    func living(_ id: DomainID) throws(Errno) -> Domain {
        guard let serial = serials[id], let domain = domains[serial] else { throw .noSuchProcess }
        return domain
    }

    // MARK: sessions

    mutating func attach(_ id: UInt64, as domain: DomainID, over socket: MachineSocket) throws(Errno) -> Session {
        let domain = try living(domain)
        let event = try Descriptor.event()
        let session = Session(
            id: id,
            serial: domain.serial,
            caller: domain.caller,
            socket: socket,
            watchEvent: event
        )
        sessions[id] = session
        return session
    }

    /// The connection is gone, and with it all it held; its ports a little later.
    mutating func end(_ id: UInt64) {
        keepPorts(of: id)
        release(id)
        sessions[id] = nil
    }

    private mutating func release(_ id: UInt64) {
        guard var session = sessions[id] else { return }
        for port in session.ports { closePort(port, of: session.serial) }
        for mapping in session.mappings.values { unmap(mapping) }
        for share in session.shares { endShare(share, of: session.serial) }
        session.ports = []
        session.mappings = [:]
        session.shares = []
        session.watches = [:]
        session.pending = []
        session.transactions = [:]
        sessions[id] = session
    }

    mutating func setFaults(_ plan: FaultPlan) {
        faults = plan
        refreshCopyFaults()
    }

    mutating func refreshCopyFaults() {
        for serial in serials.values { domains[serial]?.memory.hasCopyFaults = faults.touchesCopies }
    }
}
