// What a card tells about itself.

internal import BackendCore
internal import HostNetwork
internal import XenWire

extension NetBackend {
    func report() async -> DeviceReport {
        var report = DeviceReport(path: path, phase: life.phase)
        report.backendState = life.snapshot?.backend
        report.frontendState = life.snapshot?.frontend
        report.lastFault = life.log.lastFault
        report.lastFailure = life.log.lastFailure
        var total = pastMetrics
        var each: [DeviceReport.Counter] = []
        let queues = queues
        for (index, queue) in queues.enumerated() {
            let account = await queue.account()
            total.merge(account.metrics)
            if queues.count > 1 { each += account.metrics.counters(prefix: "queue-\(index)-") }
            report.lastFault = account.lastFault ?? report.lastFault
            report.lastFailure = account.lastFailure ?? report.lastFailure
        }
        report.counters = total.counters()
        report.counters.append(.init("tx-dropped", total.transmitDropped))
        report.counters.append(.init("rx-dropped", total.receiveDropped))
        if let interface { report.counters.append(.init("host-dropped", interface.droppedByHost)) }
        report.counters.append(.init("interface-repairs", placeRepairs))
        report.counters += each
        report.details = details
        return report
    }

    private var details: [DeviceReport.Detail] {
        var details: [DeviceReport.Detail] = []
        if let mac = keys?.mac { details.append(.init("mac", mac)) }
        if let name = keys?.interface { details.append(.init("interface", name)) }
        if let bridge = keys?.bridge { details.append(.init("bridge", bridge)) }
        details.append(.init("mtu", keys?.mtu ?? "1500"))
        if let rate = shared?.rateText { details.append(.init("rate", rate)) }
        if let connection {
            details.append(.init("queues", "\(connection.queues.count)"))
            details.append(.init("connection", connection.summary))
        }
        if let shared, shared.isFiltering { details.append(.init("multicast", "\(shared.multicastCount) addresses")) }
        return details
    }
}
