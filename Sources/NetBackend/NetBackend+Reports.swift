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
        var hosts: [String] = []
        let queues = queues
        for (index, queue) in queues.enumerated() {
            let account = await queue.account()
            total.merge(account.metrics)
            if let host = account.host, !hosts.contains(host) { hosts.append(host) }
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
        report.body = .card(facts(total, hosts))
        return report
    }

    private func facts(_ total: NetMetrics, _ hosts: [String]) -> CardReport {
        var card = CardReport(mtu: keys?.mtu.flatMap { UInt32(decimal: $0) } ?? 1500)
        card.mac = keys?.mac
        card.interface = keys?.interface
        card.bridge = keys?.bridge
        card.rate = shared?.rateText
        card.queueCount = connection?.queues.count
        card.connection = connection?.summary
        if !hosts.isEmpty {
            card.host = hosts.joined(separator: "; ") + (plainReason.map { " (\($0))" } ?? "")
        }
        if let shared, shared.isFiltering { card.multicastCount = shared.multicastCount }
        card.transmitted = CardReport.Traffic(
            packets: total.transmitPackets,
            bytes: total.transmitBytes,
            dropped: total.transmitDropped
        )
        card.received = CardReport.Traffic(
            packets: total.receivePackets,
            bytes: total.receiveBytes,
            dropped: total.receiveDropped
        )
        return card
    }
}
