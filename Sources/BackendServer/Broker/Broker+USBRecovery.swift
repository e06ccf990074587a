// The broker completes what dead workers have left half done with the host's USB.

internal import HostIO
internal import HostUSB
internal import Hypervisor
internal import Logging
internal import XenWire

extension Broker {
    /// Restores the host's USB: after a worker's death, and at the start. Devices of domains that have, or will have, a
    /// worker are left to it.
    func recoverUSB() {
        guard let host = classes.usbHost else { return }
        recoversAgain = true
        guard !isRecovering else { return }
        isRecovering = true
        Task(executorPreference: loop) { await self.recover(host) }
    }

    private func recover(_ host: any USBHost) async {
        while recoversAgain {
            recoversAgain = false
            let served = Set(workers.values.filter { $0.process != nil || $0.machine.expectsWorker }.map(\.domain))
            let done = await loop.blocking {
                host.recover { owner in
                    let path = owner.split(separator: " ").first.flatMap { DevicePath(text: String($0)) }
                    return path.map { served.contains($0.domain) } ?? false
                }
            }
            for text in done { log.notice("\(text)") }
        }
        isRecovering = false
    }
}
