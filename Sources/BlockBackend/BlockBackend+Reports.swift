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
        report.counters = metrics.counters()
        report.counters.append(.init("in-flight", UInt64(inFlight)))
        report.counters.append(.init("mapped-grants", UInt64(mapped)))
        report.body = .disk(facts)
        return report
    }

    private var facts: DiskReport {
        var disk = DiskReport(
            target: keys?.target?.path,
            isReadOnly: isReadOnly,
            isCDROM: keys?.isCDROM ?? false
        )
        if let facts = medium?.image.facts {
            disk.sectorCount = facts.sectorCount
            disk.logicalBlockSize = facts.logicalBlockSize
        }
        disk.connection = connection?.summary
        return disk
    }
}
