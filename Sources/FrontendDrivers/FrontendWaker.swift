// What wakes a frontend: its event channels, and its backend's state.

internal import HostIO
internal import Hypervisor
internal import XenWire

/// Enters the frontend, on its loop, when an event channel has fired.
final class FrontendWaker: CompletionTarget {
    private weak let frontend: (any PVFrontend)?
    private let loop: EventLoop
    private let registration = Registration()

    /// Used on the loop only.
    private final class Registration: @unchecked Sendable {
        var id: TargetID?
        var descriptor: CInt = -1
    }

    init(_ frontend: any PVFrontend) {
        self.frontend = frontend
        loop = frontend.loop
    }

    /// On the loop.
    func start(_ loop: EventLoop, _ descriptor: CInt) {
        let id = loop.attach(self)
        registration.id = id
        registration.descriptor = descriptor
        loop.watchReadable(descriptor, target: id, slot: 0)
    }

    /// On the loop.
    func stop() {
        guard let id = registration.id else { return }
        loop.unwatch(registration.descriptor, target: id, slot: 0)
        loop.detach(id)
        registration.id = nil
    }

    func completed(_ completions: borrowing CompletionBatch) {
        guard let frontend else { return }
        wake(frontend)
    }

    private func wake<Frontend: PVFrontend>(_ frontend: Frontend) {
        frontend.assumeIsolated { $0.eventsPending() }
    }
}

/// Watches the backend's state as long as a connection lives.
final class BackendMonitor: Sendable {
    private let watch: any Watch
    private let signal: WatchSignal
    private let task: Task<Void, Never>

    static func start(
        _ frontend: some PVFrontend,
        _ store: any XenStore,
        _ backend: String
    ) async throws(FrontendFailure) -> BackendMonitor {
        let signal = WatchSignal()
        let watch = try await storing { () async throws(HypervisorFailure) in
            try await store.watch("\(backend)/\(BusKeys.state)", raising: signal)
        }
        return BackendMonitor(frontend, watch, signal)
    }

    private init(_ frontend: some PVFrontend, _ watch: any Watch, _ signal: WatchSignal) {
        self.watch = watch
        self.signal = signal
        task = Task(executorPreference: frontend.loop) { [weak frontend] in
            for await _ in signal.events { await frontend?.backendChanged() }
        }
    }

    func stop() async {
        signal.finish()
        await watch.cancel()
    }
}
