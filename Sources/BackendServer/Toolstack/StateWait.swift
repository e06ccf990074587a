// Waiting for a backend's state, as the toolstack does: with a watch and a limit.

internal import HostIO
internal import Hypervisor
internal import XenWire

/// Waits until the state of a device is one of `wanted`.
enum StateWait {
    /// - Returns: the state reached, or the last one seen when the time is over; nil as soon as the node is gone.
    static func wait(
        for wanted: Set<XenbusState>,
        at node: String,
        in store: any XenStore,
        on loop: EventLoop,
        within time: Duration
    ) async throws(HypervisorFailure) -> XenbusState? {
        let signal = WatchSignal()
        let watch = try await store.watch(node, raising: signal)
        let alarm = Task(executorPreference: loop) {
            await loop.sleep(for: time)
            signal.finish()
        }
        var last: XenbusState?
        do throws(HypervisorFailure) {
            for await _ in signal.events {
                last = try await store.read(node).flatMap { XenbusState(text: $0) }
                if last.map(wanted.contains) ?? true { break }
            }
        } catch {
            alarm.cancel()
            await watch.cancel()
            throw error
        }
        alarm.cancel()
        await watch.cancel()
        return last
    }
}
