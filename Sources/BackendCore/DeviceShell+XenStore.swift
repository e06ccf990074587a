// How devices talk to XenStore and the hypervisor. While XenStore is unreachable data keeps flowing and calls are
// retried.

internal import HostIO
public import Hypervisor
internal import Logging
public import SharedRing
public import SystemPackage
public import XenWire

extension DeviceShell {
    /// Reads keys of our own directory in one go.
    public func readKeys(_ names: [String]) async -> BackendNodes {
        let path = path
        let values = await persist("read the device's keys") { (store) throws(HypervisorFailure) -> [String: String] in
            var values: [String: String] = [:]
            for name in names { values[name] = try store.read(path.key(name)) }
            return values
        }
        return BackendNodes(path: path, own: environment.hypervisor.domains.own, values: values)
    }

    func readSnapshot(_ frontend: String) async -> HandshakeSnapshot {
        let path = path
        return await persist("read the states") { (store) throws(HypervisorFailure) in
            HandshakeSnapshot(
                backendState: try store.read(path.key(BusKeys.state)),
                frontendState: try store.read("\(frontend)/\(BusKeys.state)"),
                online: try store.read(path.key(BusKeys.online)),
                hotplugStatus: try store.read(path.key(BusKeys.hotplugStatus))
            )
        }
    }

    /// Watches few keys (XSA-349): never the frontend's directory.
    func watch(_ frontend: String) async -> [any Watch] {
        var watches: [any Watch] = []
        let own = [BusKeys.state, BusKeys.online, BusKeys.hotplugStatus].map { path.key($0) }
        for node in own + ["\(frontend)/\(BusKeys.state)"] + watchedKeys {
            while !life.isDraining {
                do throws(HypervisorFailure) {
                    watches.append(try await store.watch(node, raising: signal))
                    break
                } catch {
                    await retry("watch \(node)", error)
                }
            }
        }
        return watches
    }

    /// Writes keys of ours in one transaction, unless the directory is gone: a write would recreate it.
    public func write(_ values: [(String, String)], _ what: String) async {
        let path = path
        await persist(what, isTransaction: true) { (store) throws(HypervisorFailure) in
            guard try store.read(path.key(BusKeys.state)) != nil else { return }
            for (name, value) in values { try store.write(path.key(name), value) }
        }
    }

    /// Runs `body` on XenStore until it succeeds.
    public func persist<R: Sendable>(
        _ what: String,
        isTransaction: Bool = false,
        _ body: @escaping @Sendable (any XenStoreOperations) throws(HypervisorFailure) -> R
    ) async -> R {
        await resting {
            while true {
                do throws(HypervisorFailure) {
                    let result = isTransaction ? try await store.transaction(body) : try await store.perform(body)
                    if let line = life.trouble.over() { life.logger.notice("\(line)") }
                    return result
                } catch {
                    await retry(what, error)
                }
            }
        }
    }

    private func retry(_ what: String, _ error: HypervisorFailure) async {
        let (line, pause) = life.trouble.failed(error)
        if let line { life.log.stillFailing("cannot \(what): \(line)") }
        await environment.controlLoop.sleep(for: pause)
    }

    /// A name for the frontend's domain that no other domain ever has: a journal belongs to it.
    public func domainIdentity() async throws(BackendFailure) -> String {
        let (domains, domain) = (environment.hypervisor.domains, path.domain)
        let identity: DomainIdentity?
        do throws(HypervisorFailure) {
            identity = try await environment.controlLoop.blocking { () throws(HypervisorFailure) in
                try domains.identity(of: domain)
            }
        } catch {
            throw BackendFailure(.host, "\(error)")
        }
        guard let identity else { throw BackendFailure(.notFound, "domain \(domain) is gone") }
        if let served = environment.identity, served != identity { await leave() }
        return identity.text
    }

    /// The domain number was reused: the device is another domain's now, and that domain's own worker will serve it.
    /// Nothing of it may be touched, and this process is about to exit (`WorkerEnvironment.isReplaced`).
    private func leave() async {
        environment.isReplaced.raise()
        await environment.controlLoop.wait { life.isFinished }
    }

    /// Maps a ring of the frontend's.
    /// - Parameter access: `.readOnly` for one that it may have granted for reading only.
    public nonisolated func mapRing(
        _ references: [GrantReference],
        access: GrantAccess = .readWrite
    ) throws(BackendFailure) -> SharedPages {
        do throws(HypervisorFailure) {
            return try environment.hypervisor.grants.map(references, of: path.domain, access: access)
        } catch {
            switch error.errno {
            case GrantBudget.refused: throw BackendFailure(.host, "cannot map the ring: \(error.operation)")
            case .noMemory, .resourceTemporarilyUnavailable:
                throw BackendFailure(.host, "cannot map the ring: \(error)")
            // Bad grants are the frontend's fault. A takeover waits nevertheless: the kernel returns EINVAL for other
            // reasons too.
            default: throw BackendFailure(.frontend, "cannot map the ring: \(error)", mayPass: true)
            }
        }
    }

    /// The journal of this device's connection.
    public nonisolated var journalPath: FilePath {
        environment.runDirectory.appending("journal").appending("\(path.kind)-\(path.domain)-\(path.index)")
    }

    /// Makes the journal of a new connection, or opens what a predecessor left for the same one.
    ///
    /// A predecessor may have died while reconnecting, between two journals. Rings without a single response show that:
    /// every request ever taken from them is still there, so they are served from the start.
    /// - Parameters:
    ///   - identity: says which connection it is: domain, rings, ports.
    ///   - rings: all of them, mapped.
    /// - Returns: the journal, and whether it holds what a predecessor took.
    public nonisolated func openJournal(
        identity: String,
        layout: JournalLayout,
        rings: [SharedPages],
        isTakeover: Bool
    ) throws(BackendFailure) -> (journal: RequestJournal, isTakeover: Bool) {
        if isTakeover {
            do {
                if let journal = try RequestJournal.reopen(at: journalPath, identity: identity, layout: layout) {
                    return (journal, true)
                }
            } catch {
                throw BackendFailure(.host, "cannot open the journal \(journalPath): \(HostShortage.text(error))")
            }
            guard rings.allSatisfy({ $0.loadAcquire(at: RingLayout.responseProducer) == 0 }) else {
                throw BackendFailure(
                    .host,
                    "no journal of this connection at \(journalPath): what was unanswered is unknown",
                    mayPass: false
                )
            }
        }
        do {
            return (try RequestJournal.create(at: journalPath, identity: identity, layout: layout), false)
        } catch {
            throw BackendFailure(.host, "cannot make the journal \(journalPath): \(HostShortage.text(error))")
        }
    }
}
