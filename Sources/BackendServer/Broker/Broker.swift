// The broker: finds the domains that have devices of ours and keeps one worker process for each.

internal import BackendCore
internal import HostIO
internal import HostPCI
internal import Hypervisor
internal import Logging
internal import SystemPackage
internal import XenWire

/// What a broker needs to start.
struct BrokerSetting: Sendable {
    var run: RunDirectory
    /// The command that runs a worker for a domain, or for nil a spare one: program and arguments.
    var workerCommand: @Sendable (DomainID?) -> [String]
    /// This program's build: a worker of another build is replaced.
    var build: String
    /// As long as there are workers, one more waits to replace one that dies.
    var keepsSpare = false
    /// Workers there may be at once.
    var workerLimit = 1024
    /// Where network cards are interfaces of the kernel; nil: nothing is kept or swept (simulations).
    var interfaces: (any InterfaceKeeper)?
    /// How the host's cards are hidden from it; nil: not at all (simulations).
    var pciStub: PCIStub?
    /// The firmware's tables, in which an IOMMU is described.
    var firmwareTables: FilePath = "/sys/firmware/acpi/tables"
    /// The kernel's own backends.
    var kernelBackends = KernelBackends()
}

/// Watches `backend/<kind>` and supervises workers. Pinned to its loop, where all process and timer events arrive.
///
/// It holds nothing that a worker needs: either may die at any time, and a new broker adopts the workers it finds.
actor Broker {
    nonisolated let loop: EventLoop
    nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }

    nonisolated let hypervisor: any Hypervisor
    nonisolated let setting: BrokerSetting
    nonisolated let log: Logger
    var classes: DeviceClasses
    /// Kinds of devices of which those that are not ours are given to the kernel.
    var kernelKinds: Set<DeviceKind>
    /// Those that were given, while their directories stay.
    var given: Set<DevicePath> = []
    var workers: [DomainID: SupervisedWorker] = [:]
    /// The last scan.
    var listing = DeviceListing()
    var hasScanned = false
    /// Devices closed for crashing their worker again and again (`CrashAttribution`); for as long as their directories stay.
    var excluded: Set<DevicePath> = []
    var interfaces = KeptInterfaces()
    nonisolated let signal = WatchSignal()
    private nonisolated let ending = WatchSignal()
    var watches: [any Watch] = []
    var watched: Set<String> = []
    var spare: SpareWorker?
    var spareWatch: DescriptorWatch?
    var isStopping = false
    /// Domains whose closed devices are being removed, also those whose toolstack is not done yet.
    var removing: Set<DomainID> = []
    var toolstackWaits: [DomainID: any Watch] = [:]
    /// USB controllers that were seen, and whose ports were filled if their guest was restarted.
    var restored: Set<DevicePath> = []
    var isRecovering = false
    var recoversAgain = false
    /// Domains without a worker because there are too many; each is logged once.
    var refused: Set<DomainID> = []

    init(
        loop: EventLoop,
        hypervisor: any Hypervisor,
        setting: BrokerSetting,
        classes: DeviceClasses,
        kernelKinds: Set<DeviceKind> = [],
        log: Logger
    ) {
        self.loop = loop
        self.hypervisor = hypervisor
        self.setting = setting
        self.classes = classes
        self.kernelKinds = kernelKinds
        self.log = log
    }

    /// Serves for ever; `stopped` says when it is over.
    func run() async {
        adoptWorkers()
        let sweeps = Task(executorPreference: loop) { await self.forgetGuests() }
        defer { sweeps.cancel() }
        await watch()
        await discover()
    }

    /// Ends all workers; XenStore keeps state 4 for the next start.
    func stop() {
        guard !isStopping else { return }
        isStopping = true
        dismissSpare()
        log.notice("stopping; \(workers.count) workers drain")
        for domain in workers.keys.sorted() { supervise(domain, .stop) }
        finishIfStopped()
    }

    /// Waits until `stop` has ended all workers. XenStore need not answer for that.
    func stopped() async {
        for await _ in ending.events {}
    }

    private func finishIfStopped() {
        guard isStopping, workers.isEmpty else { return }
        ending.finish()
        signal.finish()
    }

    /// Adopts a new configuration's device classes; devices that are served stay.
    func reload(_ classes: DeviceClasses, kernelKinds: Set<DeviceKind>) async {
        self.classes = classes
        self.kernelKinds = kernelKinds
        await watch()
        signal.raise()
    }

    // MARK: supervision

    /// Tells the domain's state machine what happened and performs its directives.
    func supervise(_ domain: DomainID, _ event: SupervisionEvent) {
        let worker = workers[domain] ?? SupervisedWorker(domain)
        workers[domain] = worker
        for directive in worker.machine.take(event) { perform(directive, worker) }
    }

    private func perform(_ directive: SupervisionDirective, _ worker: SupervisedWorker) {
        let log = log(of: worker.domain)
        switch directive {
        case .start:
            // A predecessor may have died.
            recoverUSB()
            start(worker)
        case .drain(let why):
            log.notice("worker \(worker.process?.identifier ?? 0) drains: \(why)")
            worker.process?.signal(stopSignal)
        case .kill:
            log.warning("worker \(worker.process?.identifier ?? 0) does not end; killed")
            worker.process?.signal(killSignal)
        case .wake(let pause): wake(worker, after: pause)
        case .removeFiles: removeFiles(worker.domain)
        case .closeAbandoned:
            recoverUSB()
            closeAbandoned(worker.domain)
        case .forget:
            worker.timer?.cancel()
            if workers[worker.domain] === worker { workers[worker.domain] = nil }
            recoverUSB()
            if workers.isEmpty { dismissSpare() }
            finishIfStopped()
        }
    }

    /// One timer per worker: a later request replaces an earlier one.
    private func wake(_ worker: SupervisedWorker, after pause: Duration) {
        worker.timer?.cancel()
        let domain = worker.domain
        worker.timer = Task(executorPreference: loop) {
            await self.loop.sleep(for: pause)
            if !Task.isCancelled { await self.woken(domain) }
        }
    }

    private func woken(_ domain: DomainID) {
        if workers[domain] != nil { supervise(domain, .woken) }
    }

    private func removeFiles(_ domain: DomainID) {
        do {
            try setting.run.removeFiles(of: domain)
        } catch {
            log(of: domain).warning("cannot remove files in \(setting.run.path): \(error)")
        }
    }

    nonisolated func log(of domain: DomainID) -> Logger {
        var log = log
        log[metadataKey: "domain"] = "\(domain)"
        return log
    }
}

/// A worker as the broker sees it. Confined to the broker's loop.
final class SupervisedWorker {
    let domain: DomainID
    var machine = Supervision()
    var process: ChildProcess?
    var watch: DescriptorWatch?
    var started = ContinuousClock.now
    var timer: Task<Void, Never>?

    init(_ domain: DomainID) { self.domain = domain }
}
