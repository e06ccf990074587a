// What a disk tells about itself.

internal import BackendCore
internal import DiskImages
internal import XenWire

extension BlockBackend {
    func report() async -> DeviceReport {
        var report = DeviceReport(path: path, phase: life.phase)
        report.backendState = life.snapshot?.backend
        report.frontendState = life.snapshot?.frontend
        var metrics = pastMetrics
        var inFlight = 0
        var mapped = 0
        report.lastFault = life.log.lastFault
        report.lastFailure = life.log.lastFailure
        for queue in queues {
            let account = await queue.account()
            metrics.merge(account.metrics)
            inFlight += account.inFlight
            mapped += account.mappedGrants
            report.lastFault = account.lastFault ?? report.lastFault
            report.lastFailure = account.lastFailure ?? report.lastFailure
        }
        report.latency = metrics.latency
        report.counters = metrics.counters
        report.counters.append(.init("in-flight", UInt64(inFlight)))
        report.counters.append(.init("mapped-grants", UInt64(mapped)))
        report.details = details
        return report
    }

    private var details: [DeviceReport.Detail] {
        var details: [DeviceReport.Detail] = []
        details.append(.init("image", keys?.target?.path ?? "(empty drive)"))
        details.append(.init("mode", isReadOnly ? "read-only" : "read-write"))
        if let facts = medium?.image.facts {
            details.append(.init("size", "\(facts.byteCount) bytes"))
            details.append(.init("sector-size", "\(facts.logicalBlockSize)"))
        }
        if let connection {
            details.append(.init("connection", connection.summary))
        }
        return details
    }
}
