// The worker as a program: lock, loops, devices, its own control socket.

internal import BackendCore
internal import ControlProtocol
internal import HostIO
public import Hypervisor
internal import Logging
internal import SystemPackage
public import XenWire

#if canImport(Glibc)
    internal import Glibc
#endif

/// `xenbackd --domain N`.
public enum WorkerProgram {
    /// The OOM score adjustment of a worker: a less likely victim than other programs, but a likelier one than the
    /// broker, whose own (the unit's `OOMScoreAdjust`) it would inherit.
    static let memoryPriority = -500

    /// Serves the devices of one domain until it has none or SIGTERM says drain; then exits with 0.
    /// - Parameter domain: nil: standard input names it, once there is a domain to serve; everything that can be done
    ///   before is done then. At the end of the input the program exits with 0.
    public static func run(
        _ options: ServiceOptions,
        domain: DomainID?,
        hypervisor: () throws -> any Hypervisor,
        classes: @escaping ClassFactory = standardClasses
    ) -> Never {
        var service = ServiceStart(domain: domain)
        try? MemoryPriority.raise(to: memoryPriority)
        service.attempt("signals") { try ProcessSignals.begin() }
        let loop = service.attempt("event loop") { try EventLoop(name: "control", entries: 64) }
        let hypervisor = service.attempt("hypervisor") { try hypervisor() }
        guard let domain = domain ?? service.attempt("standard input", { try SpareWorker.awaitDomain() }) else {
            exit(0)
        }
        service.domain = domain
        let (settings, log, run) = service.prepare(options)
        let configuration = settings.configuration
        guard let identity = service.attempt("domain", { try hypervisor.domains.identity(of: domain) }) else {
            log.notice("the domain is gone; nothing to serve")
            exit(0)
        }
        let label = WorkerLabel(process: getpid(), build: Release.build, identity: identity.text)
        let lock = service.persist("the lock of the domain's only worker", log) { () throws(Errno) in
            try LockFile(taking: run.lock(of: domain), text: label.text)
        }
        let marks = service.persist("\(run.marks(of: domain))", log) { () throws(Errno) in
            try CrashMarks(run.marks(of: domain))
        }
        let shares = service.persist("\(run.grantShares)", log) { () throws(Errno) in
            try GrantShares(run.grantShares)
        }
        let budget = GrantBudget(of: domain, configuration.grants.limits, shares: shares) { refusal in
            log.notice("no more pages of the guest are mapped, data is copied instead: \(refusal)")
        }
        let environment = WorkerEnvironment(
            hypervisor: BudgetedHypervisor(hypervisor, budget),
            domain: domain,
            identity: identity,
            controlLoop: loop,
            runDirectory: run.path,
            logger: log,
            dataLoopLimit: configuration.dataLoops ?? defaultDataLoops,
            marks: marks
        )
        let worker = Worker(environment, classes: DeviceClasses(all: classes(configuration)), marks: marks)
        runService(loop) { signal in
            // New settings are for new workers: a device keeps what it was attached with. SIGHUP is not sent to
            // workers.
            guard case .stop = signal else { return }
            Task(executorPreference: loop) { await worker.drain() }
        } body: {
            let server = ControlServer(at: run.socket(of: domain), on: loop, dispatch: worker.dispatch(), log: log)
            server.begin()
            Task(executorPreference: loop) { await worker.run() }
            await worker.drained()
            server.end()
            withExtendedLifetime(lock) {}
            return 0
        }
    }
}
