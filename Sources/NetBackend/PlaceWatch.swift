// Notices, on the control loop, that somebody may have changed a card's interface.

internal import HostIO
internal import HostNetwork
internal import Hypervisor
internal import Synchronization

/// A keeper's descriptor on the loop; its changes wake the device.
final class PlaceWatch: CompletionTarget {
    let keeper: any PlaceKeeper
    private let loop: EventLoop
    private let signal: WatchSignal
    private let hasChanged = Atomic(false)
    private let target = Mutex<TargetID?>(nil)

    /// On the loop.
    init(_ keeper: any PlaceKeeper, on loop: EventLoop, raising signal: WatchSignal) {
        self.keeper = keeper
        self.loop = loop
        self.signal = signal
        let id = loop.attach(self)
        target.withLock { $0 = id }
        loop.watchReadable(keeper.descriptor, target: id, slot: 0)
    }

    /// Whether anything may have changed since the last call.
    func takeChange() -> Bool { hasChanged.exchange(false, ordering: .relaxed) }

    func completed(_ completions: borrowing CompletionBatch) {
        keeper.takeNews()
        hasChanged.store(true, ordering: .relaxed)
        signal.raise()
    }

    /// On the loop.
    func close() {
        let id = target.withLock { $0.take() }
        guard let id else { return }
        loop.unwatch(keeper.descriptor, target: id, slot: 0)
        loop.detach(id)
    }
}
