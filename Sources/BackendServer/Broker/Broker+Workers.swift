// What the control verbs need of the broker: a domain's worker, and what XenStore says of devices.

internal import BackendCore
internal import ControlProtocol
internal import HostIO
internal import Hypervisor
internal import XenWire

extension Broker {
    /// How long a worker that does not answer may hold up a list.
    static let listPatience: Duration = .seconds(5)

    nonisolated var hotplug: WorkerHotplug { WorkerHotplug(run: setting.run, loop: loop) }

    /// Forwards a call to the domain's worker. One that is being replaced is waited for: all these calls are
    /// idempotent, so that a worker's death in the middle is no error either.
    /// - Parameters:
    ///   - none: the answer where the domain has no such device of ours.
    ///   - kinds: what the call is about.
    /// - Throws: what the worker answers; `.workerUnavailable` with the reason if devices are there and nobody serves them.
    func forward<Verb: ControlVerb>(
        _ call: Verb,
        to domain: DomainID,
        none: Verb.Reply? = nil,
        of kinds: @Sendable (DeviceKind) -> Bool = { _ in true }
    ) async throws(ControlError) -> Verb.Reply {
        let deadline = ContinuousClock.now + WorkerHotplug.patience
        while let worker = workers[domain], worker.process != nil || worker.machine.expectsWorker {
            do throws(ControlError) {
                return try await WorkerCall.perform(call, at: setting.run.socket(of: domain), on: loop)
            } catch {
                guard case .workerUnavailable = error else { throw error }
                if ContinuousClock.now >= deadline { break }
            }
            await loop.sleep(for: WorkerHotplug.askAgain)
        }
        let unserved = listing.devices(of: domain).map(\.path).filter { kinds($0.kind) }
        if let none, unserved.isEmpty { return none }
        throw .workerUnavailable(reason: whyUnserved(unserved, of: domain))
    }

    /// What to tell somebody who asked about devices that have no worker.
    private func whyUnserved(_ paths: [DevicePath], of domain: DomainID) -> String {
        if paths.isEmpty { return "domain \(domain) has no device of ours (xenback list shows them all)" }
        let reasons = paths.map { path in
            if excluded.contains(path) {
                return "\(path.shortName) is closed: its worker crashed \(CrashAttribution.limit) times in a row while"
                    + " serving it; detach it and attach it again to try once more"
            }
            if listing.devices[path]?.isOver ?? false {
                return "\(path.shortName) is closed; the toolstack has yet to remove it"
            }
            if refused.contains(domain) {
                return
                    "\(path.shortName) waits for a worker: \(setting.workerLimit) run, which is the most there may be"
            }
            return "\(path.shortName) waits for a worker, which does not start or does not answer"
        }
        return reasons.joined(separator: "; ") + " (journalctl -u xenbackd has the details)"
    }

    /// What the domain's worker answers now; nil if there is none or it does not answer soon.
    func ask<Verb: ControlVerb>(_ call: Verb, of domain: DomainID) async -> Verb.Reply? {
        guard workers[domain]?.process != nil else { return nil }
        let socket = setting.run.socket(of: domain)
        return try? await WorkerCall.perform(call, at: socket, on: loop, timeout: Broker.listPatience)
    }

    /// Domains that have devices of ours, or had some a moment ago.
    var servedDomains: Set<DomainID> { Set(workers.keys).union(listing.domains) }

    /// A device as XenStore shows it, without asking its worker.
    func shown(_ path: DevicePath) async -> Device {
        let values = try? await hypervisor.store.perform { (store) throws(HypervisorFailure) in
            (
                back: try store.read(path.key(BusKeys.state)), front: try store.read(path.frontendKey(BusKeys.state)),
                node: try store.read(path.key(BlockKeys.device)), problem: try store.read(path.errorNode)
            )
        }
        // In a driver domain this is not readable (EACCES), and the rest is.
        let name = (try? await hypervisor.store.read(path.domain.nameNode)) ?? nil
        var report = DeviceReport(path: path, phase: phase(path))
        report.backendState = values?.back.flatMap { XenbusState(text: $0) }
        report.frontendState = values?.front.flatMap { XenbusState(text: $0) }
        report.lastFailure = values?.problem
        let worker = workers[path.domain]?.process?.identifier
        return Device(report, DeviceContext(domainName: name, node: values?.node, worker: worker))
    }

    private func phase(_ path: DevicePath) -> String {
        if excluded.contains(path) { return "closed after \(CrashAttribution.limit) crashes of its worker" }
        return workers[path.domain]?.process == nil ? "waiting for a worker" : "served"
    }
}
