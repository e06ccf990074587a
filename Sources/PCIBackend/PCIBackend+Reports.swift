// What a guest's PCI buses tell about themselves.

internal import BackendCore
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
        // While its loop waits for a card, the queue cannot be asked.
        if let late = queue.facts.activity.late {
            report.phase = "waiting for \(late)"
            return report
        }
        let account = await queue.account()
        report.lastFault = account.lastFault ?? report.lastFault
        report.lastFailure = account.lastFailure ?? report.lastFailure
        report.latency = account.metrics.latency
        report.counters = account.metrics.counters()
        functions.functions = account.functions + failed
        report.body = .functions(functions)
        return report
    }
}
