// The broker as a program: lock, loop, control socket, signals.

internal import BackendCore
internal import CLinux
internal import ControlProtocol
internal import HostIO
internal import HostPCI
public import Hypervisor
internal import Logging
internal import SystemPackage

#if canImport(Glibc)
    internal import Glibc
#endif

/// `xenbackd` without `--domain`.
public enum BrokerProgram {
    /// Runs the broker until SIGTERM or SIGINT; SIGHUP reads the configuration again.
    /// - Parameters:
    ///   - hypervisor: connects to the hypervisor.
    ///   - workerCommand: the command line of a worker, after the program's path.
    ///   - classes: the device classes for a configuration.
    ///   - keepsInterfaces: the hypervisor's network cards are interfaces of this kernel.
    public static func run(
        _ options: ServiceOptions,
        hypervisor: () throws -> any Hypervisor,
        workerCommand: @escaping @Sendable (WorkerStart) -> [String],
        classes: @escaping ClassFactory = standardClasses,
        keepsInterfaces: Bool = false
    ) -> Never {
        let service = ServiceStart()
        service.attempt("signals") { try ProcessSignals.begin() }
        // Before this process opens anything else.
        let stored = ServiceManager.takeStored()
        let (settings, log, run) = service.prepare(options)
        let configuration = settings.configuration
        let lock = service.attempt("another xenbackd runs in \(run.path)") {
            try LockFile(taking: run.brokerLock, text: "\(getpid())\n")
        }
        Files.raiseOpenLimit()
        if let text = settings.text { service.attempt("settings for workers") { try run.keep(settings: text) } }
        let program = ownProgram()
        let workerSettings = settings.text.map { _ in run.settings }
        let setting = BrokerSetting(
            run: run,
            workerCommand: { domain in
                let start = WorkerStart(domain: domain, settings: workerSettings, runDirectory: run.path)
                return [program] + workerCommand(start)
            },
            build: Release.build,
            keepsSpare: configuration.spareWorker,
            interfaces: keepsInterfaces ? KernelInterfaces(stored: stored) : nil,
            // The demo has a simulated host and must not touch the real host's cards.
            pciStub: keepsInterfaces ? .ofThisHost : nil
        )
        let loop = service.attempt("event loop") { try EventLoop(name: "broker", entries: 64) }
        let hypervisor = service.attempt("hypervisor") { try hypervisor() }
        let broker = Broker(
            loop: loop,
            hypervisor: hypervisor,
            setting: setting,
            classes: DeviceClasses(all: classes(configuration)),
            kernelKinds: configuration.kernel.kinds,
            log: log
        )
        runService(loop) { signal in
            switch signal {
            case .stop: Task(executorPreference: loop) { await broker.stop() }
            case .reload: reload(broker, options, classes, run, log)
            }
        } body: {
            let server = ControlServer(
                at: run.controlSocket,
                on: loop,
                dispatch: BrokerVerbs(broker).dispatch(),
                log: log
            )
            server.begin()
            log.notice("xenbackd \(Release.version) serves domain \(hypervisor.domains.own)'s backends")
            try? ServiceManager.ready()
            Task(executorPreference: loop) {
                // Before the first device is looked at: who gets it depends on it.
                await broker.settleHost(configuration)
                await broker.run()
            }
            await broker.stopped()
            server.end()
            log.notice("stopped")
            withExtendedLifetime(lock) {}
            return 0
        }
    }

    private static func reload(
        _ broker: Broker,
        _ options: ServiceOptions,
        _ classes: ClassFactory,
        _ run: RunDirectory,
        _ log: Logger
    ) {
        do {
            let settings = try options.read()
            let configuration = settings.configuration
            if let text = settings.text { try run.keep(settings: text) }
            log.notice("configuration read again")
            let all = DeviceClasses(all: classes(configuration))
            Task(executorPreference: broker.loop) {
                await broker.settleHost(configuration)
                await broker.reload(all, kernelKinds: configuration.kernel.kinds)
            }
        } catch {
            log.error("the new configuration is invalid, the old one stays in force: \(error)")
        }
    }
}
