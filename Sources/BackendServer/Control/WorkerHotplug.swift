// The hotplug script's request, on its way to the worker of the device.

internal import ControlProtocol
internal import HostIO
internal import XenWire

/// Asks a domain's worker to do what the toolstack's script would have done.
struct WorkerHotplug: Sendable {
    /// How long a worker that is starting is waited for.
    static let patience: Duration = .seconds(30)
    static let askAgain: Duration = .milliseconds(20)

    let run: RunDirectory
    let loop: EventLoop

    /// `add` returns when the device is ready, `remove` also where nobody serves the device any more.
    func callAsFunction(_ path: DevicePath, _ event: HotplugEvent) async throws(ControlError) {
        let call = Hotplug(path: path.description, event: event)
        let deadline = ContinuousClock.now + WorkerHotplug.patience
        while true {
            do throws(ControlError) {
                _ = try await WorkerCall.perform(call, at: run.socket(of: path.domain), on: loop)
                return
            } catch {
                switch (error, event) {
                // Nobody serves it any more, so it is removed.
                case (.workerUnavailable, .remove), (.noSuchDevice, .remove): return
                case (.workerUnavailable, .add) where ContinuousClock.now < deadline: break
                default: throw error
                }
                await loop.sleep(for: WorkerHotplug.askAgain)
            }
        }
    }
}
