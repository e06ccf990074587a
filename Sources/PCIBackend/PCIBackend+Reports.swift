// What a guest's PCI buses tell about themselves.

internal import BackendCore
internal import HostIO
internal import Synchronization
internal import XenWire

extension PCIBackend {
    func report() async -> DeviceReport {
        var report = DeviceReport(path: path, phase: life.phase)
        report.backendState = life.snapshot?.backend
        report.frontendState = life.snapshot?.frontend
        report.lastFault = life.log.lastFault
        report.lastFailure = life.log.lastFailure
        var functions = FunctionsReport(mode: settings.mode.rawValue)
        functions.connection = connection?.summary
        functions.functions = failed
        report.body = .functions(functions)
        guard let queue else { return report }
        guard let account = await account(of: queue) else {
            if let late = queue.facts.activity.late { report.phase = "waiting for \(late)" }
            return report
        }
        report.lastFault = account.lastFault ?? report.lastFault
        report.lastFailure = account.lastFailure ?? report.lastFailure
        report.latency = account.metrics.latency
        report.counters = account.metrics.counters()
        functions.functions = account.functions + failed
        report.body = .functions(functions)
        return report
    }

    /// The queue's account; nil while its loop hangs with a card, which nobody who asks must wait for.
    private func account(of queue: PCIQueue) async -> PCIQueue.Account? {
        let answer = LateAnswer()
        Task(executorPreference: environment.controlLoop) { answer.put(await queue.account()) }
        await environment.controlLoop.wait { answer.account != nil || queue.facts.activity.late != nil }
        return answer.account
    }
}

/// What a queue told, when it did.
private final class LateAnswer: Sendable {
    private let told = Mutex<PCIQueue.Account?>(nil)
    var account: PCIQueue.Account? { told.withLock { $0 } }
    func put(_ account: PCIQueue.Account) { told.withLock { $0 = account } }
}
