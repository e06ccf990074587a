// One disk's life: asks the handshake what to do, and does it. Pinned to the control loop.

internal import BackendCore
internal import HostIO
internal import Hypervisor
internal import Logging
internal import XenWire

/// The shell of one disk. `Handshake` decides; the files beside perform (`+Directives`), open images (`+Backing`) and
/// answer people (`+Commands`).
actor BlockBackend: DeviceBackend {
    nonisolated let path: DevicePath
    nonisolated let environment: WorkerEnvironment
    nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe environment.controlLoop.asUnownedSerialExecutor() }

    let offer: BlockOffer
    let logger: Logger
    /// Raised by the watches, by finished work and by whoever asks something of the device.
    nonisolated let signal = WatchSignal()
    var log: FaultLog
    private var lifeLines = RateLimiter(burst: 32, interval: .seconds(5))

    // Facts from the toolstack; nil before `run`.
    var keys: BlockDeviceKeys?
    var handshake: Handshake?
    /// Events that wait for their turn.
    var events: [HandshakeEvent] = []
    var snapshot: HandshakeSnapshot?
    var isFinished = false
    /// Stopped for a successor: XenStore and journal stay as they are.
    var isDraining = false
    var stopped: [CheckedContinuation<Void, Never>] = []
    var scripts: [CheckedContinuation<BackendFailure?, Never>] = []

    // What is held.
    var medium: BlockMedium?
    var connection: BlockConnection?
    var queues: [BlockQueue] = []
    var alarm: QueueAlarm?
    var reportedFault = false
    /// Counters of connections that are over.
    var pastMetrics = BlockMetrics()

    init(_ path: DevicePath, _ environment: WorkerEnvironment, _ offer: BlockOffer) {
        self.path = path
        self.environment = environment
        self.offer = offer
        var logger = environment.logger
        logger[metadataKey: "device"] = "\(path)"
        self.logger = logger
        log = FaultLog(logger)
    }

    var store: any XenStore { environment.hypervisor.store }

    func run() async {
        let keys = await readKeys()
        self.keys = keys
        let isDriverDomain = environment.hypervisor.domains.own != .initial
        let waitsForHotplug = keys.hasScript && !isDriverDomain
        handshake = Handshake(
            HandshakePolicy(
                waitsForHotplug: waitsForHotplug,
                holdsInitWait: !waitsForHotplug && path.kind != .qdisk,
                removesDirectory: isDriverDomain
            )
        )
        let watches = await watch(keys.frontend)
        for await _ in signal.events {
            await reconcile()
            if isFinished { break }
        }
        for watch in watches { await watch.cancel() }
        for script in scripts { script.resume(returning: BackendFailure(.notFound, "\(path) is gone")) }
        scripts = []
        for waiting in stopped { waiting.resume() }
        stopped = []
    }

    /// Says what the device does. A frontend can make it do things for ever, but not log for ever (XSA-43).
    func say(_ text: @autoclosure () -> String, level: Logger.Level = .info) {
        guard let suppressed = lifeLines.allow() else { return }
        let text = text()
        logger.log(level: level, "\(suppressed > 0 ? "\(text) (\(suppressed) lines were left out)" : text)")
    }

    /// Takes all events and one snapshot after the other until nothing is left to do.
    private func reconcile() async {
        repeat {
            while !events.isEmpty, !isFinished { await receive(events.removeFirst()) }
            if isFinished { return }
            if let fault = alarm?.raised, !reportedFault {
                reportedFault = true
                log.fault("\(fault)")
                await receive(.fault("the frontend broke its ring: \(fault)"))
            }
            let snapshot = await readSnapshot()
            self.snapshot = snapshot
            await receive(.snapshot(snapshot))
        } while !events.isEmpty && !isFinished
    }

    private func receive(_ event: HandshakeEvent) async {
        guard let directives = handshake?.receive(event) else { return }
        for directive in directives { await perform(directive) }
    }

    /// Enters an event and wakes `run`.
    func enqueue(_ event: HandshakeEvent) {
        events.append(event)
        signal.raise()
    }

    func drain() async {
        guard !isFinished else { return }
        isDraining = true
        enqueue(.stop)
        await withCheckedContinuation { stopped.append($0) }
    }
}

// Reading XenStore. It may be out of reach for a while: the data path goes on, and we ask again.
extension BlockBackend {
    private func readKeys() async -> BlockDeviceKeys {
        let names = [
            BusKeys.frontend, BusKeys.script, BlockKeys.params, BlockKeys.mode, BlockKeys.deviceType,
            BlockKeys.removable, BlockKeys.directIOSafe, BlockKeys.discardEnable,
        ]
        let path = path
        let values = await persist("read the device's keys") { (store) throws(HypervisorFailure) -> [String: String] in
            var values: [String: String] = [:]
            for name in names { values[name] = try store.read(path.key(name)) }
            return values
        }
        return BlockDeviceKeys(BackendKeys(path: path, own: environment.hypervisor.domains.own, values: values))
    }

    private func readSnapshot() async -> HandshakeSnapshot {
        let (path, frontend) = (path, keys?.frontend ?? path.frontend)
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
    private func watch(_ frontend: String) async -> [any Watch] {
        var watches: [any Watch] = []
        for node in [
            path.key(BusKeys.state), path.key(BusKeys.online), path.key(BusKeys.hotplugStatus), "\(frontend)/state",
        ] {
            var pause = Duration.milliseconds(20)
            while !isDraining {
                do throws(HypervisorFailure) {
                    watches.append(try await store.watch(node, raising: signal))
                    break
                } catch {
                    pause = await retry("watch \(node)", error, pause)
                }
            }
        }
        return watches
    }

    /// Runs `body` on XenStore until it succeeds.
    func persist<R: Sendable>(
        _ what: String,
        isTransaction: Bool = false,
        _ body: @escaping @Sendable (any XenStoreOperations) throws(HypervisorFailure) -> R
    ) async -> R {
        var pause = Duration.milliseconds(20)
        while true {
            do throws(HypervisorFailure) {
                let result = isTransaction ? try await store.transaction(body) : try await store.perform(body)
                log.forget()
                return result
            } catch {
                pause = await retry(what, error, pause)
            }
        }
    }

    private func retry(_ what: String, _ error: HypervisorFailure, _ pause: Duration) async -> Duration {
        log.failure("cannot \(what): \(error); trying again")
        await environment.controlLoop.sleep(for: pause)
        return min(pause * 2, .seconds(1))
    }
}
