// What a controller tells about itself.

internal import BackendCore
internal import XenWire

extension USBBackend {
    func report() async -> DeviceReport {
        var report = DeviceReport(path: path, phase: life.phase)
        report.backendState = life.snapshot?.backend
        report.frontendState = life.snapshot?.frontend
        let account = await queue?.account() ?? USBQueue.Account()
        report.lastFault = account.lastFault ?? life.log.lastFault
        report.lastFailure = account.lastFailure ?? life.log.lastFailure
        report.latency = account.metrics.latency
        report.counters = account.metrics.counters()
        report.counters.append(.init("in-flight", UInt64(account.inFlight)))
        var controller = ControllerReport()
        controller.version = shape?.version.rawValue
        controller.portCount = shape?.portCount
        controller.connection = connection?.summary
        controller.ports = account.ports
        report.body = .controller(controller)
        return report
    }
}
