// The worker: serves all devices of one frontend domain, until there are none or the broker asks it to drain.

internal import BackendCore
internal import HostIO
internal import Hypervisor
internal import Logging
internal import XenWire

/// Serves the devices of one domain. Pinned to the control loop, like the devices' own actors.
actor Worker {
    /// Without devices for this long, the worker leaves.
    static let grace: Duration = .seconds(1)
    /// How long a suspect gets to prove itself before the next suspect is attached.
    static let suspectTime: Duration = .milliseconds(250)

    nonisolated let loop: EventLoop
    nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }

    let environment: WorkerEnvironment
    private let classes: DeviceClasses
    private let marks: CrashMarks
    private let signal = WatchSignal()
    private let ending = WatchSignal()
    private let log: Logger
    private var running: [DevicePath: RunningDevice] = [:]
    /// Their `run` returned while their directory is still there.
    private var finished: Set<DevicePath> = []
    private var isDraining = false
    /// Our domain is gone and another one has its number: nothing may be finished.
    private var isReplaced = false
    /// The first scan has been applied: what is not served now is not there.
    private var hasLooked = false
    private var watches: [any Watch] = []

    private struct RunningDevice {
        let backend: any DeviceBackend
        let mark: DeviceCrashMark?
    }

    init(_ environment: WorkerEnvironment, classes: DeviceClasses, marks: CrashMarks) {
        self.environment = environment
        self.classes = classes
        self.marks = marks
        loop = environment.controlLoop
        log = environment.logger
    }

    /// Serves until there is nothing left to serve; `drained` continues then.
    func run() async {
        Task(executorPreference: loop) {
            for await _ in self.environment.isReplaced.events { await self.abandon() }
        }
        await watch()
        var trouble = XenStoreTrouble()
        for await _ in signal.events {
            if isDraining { break }
            let begun = ContinuousClock.now
            do {
                try await apply(try await list())
                trouble.reportOver(log)
            } catch {
                raise(after: trouble.report(error, log))
            }
            if await isIdleForGood() { break }
            await loop.sleep(for: XenStoreTrouble.rest(after: ContinuousClock.now - begun))
        }
        drain()
    }

    /// Asks for the end, whatever `run` waits for: XenStore may not answer.
    func drain() {
        isDraining = true
        signal.raise()
        ending.finish()
    }

    /// The domain's number was reused. What is in flight has no owner any more, and anything we touched would be the
    /// other domain's.
    private func abandon() {
        guard !isReplaced else { return }
        isReplaced = true
        log.notice("the number is another domain's now: leaving everything as it is")
        drain()
    }

    /// Waits until the end is asked for, then finishes everything in flight. XenStore stays as it is.
    func drained() async {
        for await _ in ending.events {}
        environment.isReplaced.finish()
        if isReplaced { return }
        await withTaskGroup(of: Void.self) { group in
            for device in running.values { group.addTask { await device.backend.drain() } }
        }
        await loop.wait { running.isEmpty }
    }

    // MARK: devices

    /// The device, once it is served: waits up to `time` for a scan that finds it.
    func device(_ path: DevicePath, waiting time: Duration = .zero) async -> (any DeviceBackend)? {
        await loop.wait(within: time) { running[path] != nil || isDraining }
        return running[path]?.backend
    }

    /// All devices, in order of their numbers; a worker that has just started waits for its first scan.
    func devices() async -> [any DeviceBackend] {
        await loop.wait(within: Worker.hotplugPatience) { hasLooked || isDraining }
        return running.sorted { $0.key.index < $1.key.index }.map(\.value.backend)
    }

    private func list() async throws(HypervisorFailure) -> DeviceListing {
        let (classes, domain, own) = (classes, environment.domain, environment.hypervisor.domains.own)
        return try await environment.hypervisor.store.perform { (store) throws(HypervisorFailure) in
            try DeviceListing.read(store, kinds: classes.kinds, classes: classes, own: own, domain: domain)
        }
    }

    /// Whether what is listed under the domain's number belongs to our domain. If the number was reused the broker ends
    /// us and removes our files; until then we must not begin to serve the other domain.
    private func isOurs() async throws(HypervisorFailure) -> Bool {
        guard let served = environment.identity else { return true }
        let (domains, domain) = (environment.hypervisor.domains, environment.domain)
        let found = try await loop.blocking { () throws(HypervisorFailure) in try domains.identity(of: domain) }
        if let found, found != served { environment.isReplaced.raise() }
        return found == served
    }

    private func apply(_ listing: DeviceListing) async throws(HypervisorFailure) {
        finished = finished.filter { path in
            // A directory that is gone, or was recreated by the toolstack, is a new device.
            listing.devices[path].map { !$0.isNew } ?? false
        }
        let new = listing.devices(of: environment.domain).filter(canStart)
        if !new.isEmpty, !(try await isOurs()) { return }
        var suspects: [DevicePath] = []
        for device in new where canStart(device) {
            let mark = marks.mark(for: device.name)
            if let mark, mark.isExcluded {
                guard device.isNew else { continue }
                mark.pardon()
            }
            if let mark, mark.crashes >= CrashAttribution.staggerFrom {
                suspects.append(device.path)
            } else {
                start(device.path, mark)
            }
        }
        hasLooked = true
        for path in suspects where !isDraining {
            let mark = marks.mark(for: path.nameInDomain)
            start(path, mark)
            await suspect(mark)
        }
    }

    private func canStart(_ device: ListedDevice) -> Bool {
        running[device.path] == nil && !finished.contains(device.path) && !device.isOver
    }

    private func start(_ path: DevicePath, _ mark: DeviceCrashMark?) {
        guard let owner = classes.all.first(where: { $0.kinds.contains(path.kind) }) else { return }
        mark?.reset()
        let backend = owner.makeBackend(path, environment)
        running[path] = RunningDevice(backend: backend, mark: mark)
        Task(executorPreference: loop) {
            await backend.run()
            await self.ended(path)
        }
    }

    private func ended(_ path: DevicePath) {
        guard let device = running.removeValue(forKey: path) else { return }
        finished.insert(path)
        if !isDraining { device.mark?.free() }
        signal.raise()
    }

    /// Gives a suspect time alone: if the worker dies now, it was this one.
    private func suspect(_ mark: DeviceCrashMark?) async {
        guard let mark else { return }
        await loop.wait(within: Worker.suspectTime) { mark.hasProgressed || isDraining }
    }

    // MARK: waiting

    private func watch() async {
        for kind in classes.kinds {
            await XenStoreTrouble.persist(loop, log) { () async throws(HypervisorFailure) in
                let path = "backend/\(kind)/\(self.environment.domain)"
                self.watches.append(try await self.environment.hypervisor.store.watch(path, raising: self.signal))
            }
        }
    }

    private func raise(after pause: Duration) {
        let (loop, signal) = (loop, signal)
        Task(executorPreference: loop) {
            await loop.sleep(for: pause)
            signal.raise()
        }
    }

    /// Whether there is no device, and none comes within the grace period.
    private func isIdleForGood() async -> Bool {
        guard running.isEmpty, finished.isEmpty else { return false }
        await loop.sleep(for: Worker.grace)
        guard !isDraining, let listing = try? await list() else { return false }
        return !listing.devices(of: environment.domain).contains { !$0.isOver }
    }
}
