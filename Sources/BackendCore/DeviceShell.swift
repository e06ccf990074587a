// The life cycle of a device of any class: asks the handshake what to do, and does it. Pinned to the control loop.

internal import HostIO
public import Hypervisor
internal import Logging
public import XenWire

/// A device class's actor, as the shell sees it. `Handshake` decides; the shell talks to XenStore, to scripts and to the
/// worker; the class opens, connects and releases what is its own.
public protocol DeviceShell: DeviceBackend {
    nonisolated var environment: WorkerEnvironment { get }
    /// Raised by the watches, by finished work and by requests to the device.
    nonisolated var signal: WatchSignal { get }
    var life: DeviceLife { get set }

    /// Reads the toolstack's keys, once, before anything else.
    /// - Returns: where the frontend's directory is, and what the handshake is to look out for.
    func begin() async -> (frontend: String, policy: HandshakePolicy)
    /// Further keys to watch; `keysChanged` is called whenever any watch has fired.
    var watchedKeys: [String] { get }
    /// A watch has fired: keys that matter while the device is connected may have changed.
    func keysChanged() async

    /// Keys to publish before state 2.
    var features: [(String, String)] { get }
    /// Keys to publish with state 4.
    var properties: [(String, String)] { get }
    /// Opens the image, makes the interface …
    /// - Parameter isTakeover: a predecessor may still hold it for a moment.
    func openBacking(isTakeover: Bool) async throws(BackendFailure)
    /// Releases it. It may never have been opened.
    func closeBacking() async
    /// Keys that tell the toolstack what the backing is, beside `hotplug-status`; nil if there is no backing.
    var announcement: [(String, String)]? { get }
    /// Maps the rings and begins to serve.
    /// - Parameter isTakeover: the frontend never noticed that its backend died.
    /// - Returns: the connection in a line.
    func connect(isTakeover: Bool) async throws(BackendFailure) -> String
    /// Finishes what is in flight and releases all that `connect` took, also if that failed half-way.
    func disconnect() async
    /// Why the connection cannot continue; nil while it can.
    var breakdown: Breakdown? { get }
    /// Drops everything without finishing it, as the death of the process does; for tests.
    func release() async
}

extension DeviceShell {
    public nonisolated var store: any XenStore { environment.hypervisor.store }
    public var watchedKeys: [String] { [] }
    public func keysChanged() async {}
    public var properties: [(String, String)] { [] }

    public func run() async {
        let (frontend, policy) = await begin()
        life.frontend = frontend
        life.handshake = Handshake(policy)
        let watches = await watch(frontend)
        for await _ in signal.events {
            await reconcile(frontend)
            if life.isFinished { break }
            await keysChanged()
        }
        for watch in watches { await watch.cancel() }
        for script in life.scripts { script.resume(returning: BackendFailure(.notFound, "\(path) is gone")) }
        life.scripts = []
        for waiting in life.stopped { waiting.resume() }
        life.stopped = []
    }

    /// Takes all events and one snapshot after the other until nothing is left to do.
    private func reconcile(_ frontend: String) async {
        repeat {
            while !life.events.isEmpty, !life.isFinished { await receive(life.events.removeFirst()) }
            if life.isFinished { return }
            if let breakdown, !life.reportedFault, life.isServing {
                life.reportedFault = true
                await receive(.fault(tell(breakdown)))
            }
            let snapshot = await readSnapshot(frontend)
            life.snapshot = snapshot
            await receive(.snapshot(snapshot))
        } while !life.events.isEmpty && !life.isFinished
    }

    /// Logs it; the result is for the device's error node.
    private func tell(_ breakdown: Breakdown) -> String {
        switch breakdown {
        case .frontend(let text):
            life.log.fault(text)
            return "the frontend broke its ring: \(text)"
        case .host(let text):
            life.log.failure(text)
            return text
        }
    }

    private func receive(_ event: HandshakeEvent) async {
        guard let directives = life.handshake?.receive(event) else { return }
        for directive in directives { await perform(directive) }
    }

    /// Queues an event and wakes `run`.
    private func enqueue(_ event: HandshakeEvent) {
        life.events.append(event)
        signal.raise()
    }

    public func drain() async {
        guard !life.isFinished else { return }
        life.isDraining = true
        enqueue(.stop)
        // Checked again inside: other jobs of this actor may have run in between.
        await withCheckedContinuation { continuation in
            if life.isFinished { continuation.resume() } else { life.stopped.append(continuation) }
        }
    }

    public func hotplug(_ event: HotplugEvent) async throws(BackendFailure) {
        if life.isFinished, event == .remove { return }
        guard !life.isFinished, !life.isDraining else { throw BackendFailure(.unsupported, "\(path) is going away") }
        let failure = await withCheckedContinuation { (continuation: CheckedContinuation<BackendFailure?, Never>) in
            if life.isFinished {
                continuation.resume(returning: event == .remove ? nil : BackendFailure(.notFound, "\(path) is gone"))
                return
            }
            life.scripts.append(continuation)
            enqueue(event == .add ? .hotplugAdd : .hotplugRemove)
        }
        if let failure { throw failure }
    }

    /// Ends as if the process had been killed, for tests: nothing is finished or written. A `connect` in progress is
    /// waited for: what it opened afterwards would serve beside the successor, which no dead process does.
    package func abandon() async {
        await withCheckedContinuation { continuation in
            if life.isFinished { return continuation.resume() }
            life.isFinished = true
            life.stopped.append(continuation)
            signal.raise()
        }
        await life.attaching?.value
        await release()
    }
}

// Carrying out the handshake's directives.
extension DeviceShell {
    /// How long state 2 is kept where no script holds it (`HandshakeDirective.holdInitWait`).
    private static var initWaitTime: Duration { .milliseconds(300) }

    private func perform(_ directive: HandshakeDirective) async {
        switch directive {
        case .publishFeatures: await write(features, "publish the features")
        case .publish(let state): await publish(state)
        case .holdInitWait: holdInitWait()
        case .openBacking: startOpening()
        case .closeBacking: await closeBacking()
        case .connect: startAttaching(isTakeover: false)
        case .reattach: startAttaching(isTakeover: true)
        case .disconnect: startDisconnecting()
        case .reportError(let text): await reportError(text)
        case .answerHotplug(let failure): await answerScripts(failure)
        case .removeBackendDirectory: await removeDirectory()
        case .finished: life.isFinished = true
        }
    }

    private func publish(_ state: XenbusState) async {
        life.say("state \(state)")
        var values = state == .connected ? properties : []
        values.append((BusKeys.state, state.text))
        await write(values, "publish state \(state)")
    }

    private func holdInitWait() {
        Task(executorPreference: environment.controlLoop) {
            await self.environment.controlLoop.sleep(for: Self.initWaitTime)
            await self.enqueue(.initWaitHeld)
        }
    }

    private func startOpening() {
        // A device that reconfigures is connected.
        let isTakeover = [.connected, .reconfiguring, .reconfigured].contains(life.snapshot?.backend)
        Task(executorPreference: environment.controlLoop) { await self.finishOpening(isTakeover: isTakeover) }
    }

    private func finishOpening(isTakeover: Bool) async {
        do throws(BackendFailure) {
            try await openBacking(isTakeover: isTakeover)
            enqueue(.backingOpened)
        } catch {
            life.log.failure(error.text)
            enqueue(.backingFailed(error.text))
        }
    }

    /// Attaches in a task of its own, so that states are still read meanwhile: the device may no longer be needed.
    private func startAttaching(isTakeover: Bool) {
        life.reportedFault = false
        life.attaching = Task(executorPreference: environment.controlLoop) { await self.attach(isTakeover: isTakeover) }
    }

    /// A slow host (no room for the journal, no memory for mappings) never closes the device: the attach is retried,
    /// and the frontend's keys are read again each time.
    private func attach(isTakeover: Bool) async {
        do throws(BackendFailure) {
            let summary = try await wait(for: "the rings") { () async throws(BackendFailure) in
                try await connectOnce(isTakeover: isTakeover)
            }
            life.say("\(isTakeover ? "took over" : "connected"): \(summary)")
            enqueue(.connected)
        } catch {
            guard life.isWanted else { return enqueue(.connectWithdrawn) }
            if error.kind == .frontend { life.log.fault(error.text) } else { life.log.failure(error.text) }
            enqueue(.connectFailed(error.text))
        }
    }

    private func connectOnce(isTakeover: Bool) async throws(BackendFailure) -> String {
        do throws(BackendFailure) {
            return try await marked { () async throws(BackendFailure) in try await connect(isTakeover: isTakeover) }
        } catch {
            await disconnect()
            // A new frontend's fault is permanent, and who has what it asks for is named, for somebody to decide. A
            // takeover cannot tell: a port that is still the dead predecessor's looks like a wrong one.
            guard !isTakeover, error.mayPass else { throw error }
            guard error.kind == .host else { throw BackendFailure(error.kind, error.text, mayPass: false) }
            life.log.failure(error.text)
            throw error
        }
    }

    /// Where the device marks that its code runs.
    public var mark: DeviceCrashMark? { environment.marks?.mark(for: "\(path.kind)/\(path.index)") }

    /// Finishes what is in flight; commands and scripts are answered meanwhile.
    private func startDisconnecting() {
        Task(executorPreference: environment.controlLoop) {
            await self.disconnect()
            if await !self.life.isDraining { RequestJournal.remove(at: self.journalPath) }
            await self.enqueue(.disconnected)
        }
    }

    private func reportError(_ text: String) async {
        life.say(text, level: .error)
        let node = path.errorNode
        let value = "1 \(text)"
        await persist("write the error node") { (store) throws(HypervisorFailure) in try store.write(node, value) }
    }

    private func answerScripts(_ failure: String?) async {
        if failure == nil, let announcement {
            // What the toolstack's own script would have written.
            await write(announcement + [(BusKeys.hotplugStatus, "connected")], "announce the backing")
        }
        let waiting = life.scripts
        life.scripts = []
        for script in waiting { script.resume(returning: failure.map { BackendFailure(.host, $0) }) }
    }

    private func removeDirectory() async {
        let directory = path.relative
        await persist("remove the device's directory") { (store) throws(HypervisorFailure) in
            try store.remove(directory)
        }
    }
}
