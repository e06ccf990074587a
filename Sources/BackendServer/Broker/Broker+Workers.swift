// What the control verbs need of the broker: a domain's worker, and what XenStore says of devices.

internal import BackendCore
internal import ControlProtocol
internal import HostIO
internal import Hypervisor
internal import XenWire

extension Broker {
    /// A list is not held up for longer by a worker that does not answer.
    static let listPatience: Duration = .seconds(5)

    nonisolated var hotplug: WorkerHotplug { WorkerHotplug(run: setting.run, loop: loop) }

    /// Gives a call to the domain's worker. One that is being replaced is waited for: what may be asked here can be
    /// asked twice, so that a worker's death in the middle is no error either.
    /// - Parameter none: the answer where the domain has no device of ours.
    func forward<Verb: ControlVerb>(
        _ call: Verb,
        to domain: DomainID,
        none: Verb.Reply? = nil
    ) async throws(ControlError) -> Verb.Reply {
        let deadline = ContinuousClock.now + WorkerHotplug.patience
        while let worker = workers[domain], worker.process != nil || worker.machine.expectsWorker {
            do throws(ControlError) {
                return try await WorkerCall.perform(call, at: setting.run.socket(of: domain), on: loop)
            } catch {
                guard case .workerUnavailable = error, ContinuousClock.now < deadline else { throw error }
            }
            await loop.sleep(for: WorkerHotplug.askAgain)
        }
        if let none { return none }
        throw .workerUnavailable(reason: "domain \(domain) has no device of ours")
    }

    /// What the domain's worker answers now; nil if there is none or it does not answer soon.
    func ask<Verb: ControlVerb>(_ call: Verb, of domain: DomainID) async -> Verb.Reply? {
        guard workers[domain]?.process != nil else { return nil }
        let socket = setting.run.socket(of: domain)
        return try? await WorkerCall.perform(call, at: socket, on: loop, timeout: Broker.listPatience)
    }

    /// Domains that have devices of ours, or had some a moment ago.
    var servedDomains: Set<DomainID> { Set(workers.keys).union(listing.domains) }

    /// A device as XenStore shows it, without its worker's word.
    func shown(_ path: DevicePath) async -> Device {
        let values = try? await hypervisor.store.perform { (store) throws(HypervisorFailure) in
            (
                back: try store.read(path.key(BusKeys.state)), front: try store.read(path.frontendKey(BusKeys.state)),
                node: try store.read(path.key(BlockKeys.device)), name: try store.read(path.domain.nameNode),
                problem: try store.read(path.errorNode)
            )
        }
        var report = DeviceReport(path: path, phase: phase(path))
        report.backendState = values?.back.flatMap { XenbusState(text: $0) }
        report.frontendState = values?.front.flatMap { XenbusState(text: $0) }
        report.lastFailure = values?.problem
        let worker = workers[path.domain]?.process?.identifier
        return Device(report, DeviceContext(domainName: values?.name, node: values?.node, worker: worker))
    }

    private func phase(_ path: DevicePath) -> String {
        if excluded.contains(path) { return "closed after \(CrashAttribution.limit) deaths of its backend" }
        return workers[path.domain]?.process == nil ? "waiting for a worker" : "served"
    }
}
