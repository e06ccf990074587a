// Devices as the control interface shows them: our values converted to its types.

internal import BackendCore
internal import ControlProtocol
internal import XenWire

/// What the broker or a worker knows about a device beyond its report.
struct DeviceContext: Sendable {
    var domainName: String?
    /// The key `dev`: xvda.
    var node: String?
    var worker: CInt?
}

extension ControlProtocol.Device {
    init(_ report: DeviceReport, _ context: DeviceContext) {
        self.init(
            path: report.path.description,
            kind: report.path.kind.rawValue,
            domain: Int(report.path.domain.rawValue),
            domainName: context.domainName,
            index: Int(report.path.index),
            node: context.node,
            backendState: report.backendState?.headerName ?? "none",
            frontendState: report.frontendState?.headerName ?? "none",
            phase: report.phase,
            worker: context.worker.map(Int.init),
            problem: report.lastFailure ?? report.lastFault
        )
    }
}

extension Report {
    init(_ report: DeviceReport, _ context: DeviceContext) {
        self.init(
            device: Device(report, context),
            facts: report.details.map { Fact(name: $0.name, value: $0.value) },
            counters: report.counters.map { Counter(name: $0.name, value: Int64(clamping: $0.value)) },
            latencies: report.latency.map { [Histogram("requests", $0)] } ?? [],
            lastFault: report.lastFault,
            lastFailure: report.lastFailure
        )
        switch report.body {
        case .disk(let facts): disk = DiskFacts(facts)
        case .card(let facts): card = CardFacts(facts)
        case .controller(let facts): controller = ControllerFacts(facts)
        // What there is to say of cards, the facts say.
        case .functions, nil: break
        }
    }
}

extension DiskFacts {
    init(_ report: DiskReport) {
        self.init(
            target: report.target,
            readOnly: report.isReadOnly,
            cdrom: report.isCDROM,
            sectors: report.sectorCount.map { Int64(clamping: $0) },
            logicalBlockSize: report.logicalBlockSize
        )
    }
}

extension CardFacts {
    init(_ report: CardReport) {
        self.init()
        mac = report.mac
        interface = report.interface
        bridge = report.bridge
        mtu = Int(report.mtu)
        queues = report.queueCount
        rate = report.rate
        txPackets = Int64(clamping: report.transmitted.packets)
        txBytes = Int64(clamping: report.transmitted.bytes)
        txDropped = Int64(clamping: report.transmitted.dropped)
        rxPackets = Int64(clamping: report.received.packets)
        rxBytes = Int64(clamping: report.received.bytes)
        rxDropped = Int64(clamping: report.received.dropped)
    }
}

extension ControllerFacts {
    init(_ report: ControllerReport) {
        self.init(
            version: report.version.map { Int($0) },
            portCount: report.portCount,
            ports: report.ports.map { Port($0) }
        )
    }
}

extension ControllerFacts.Port {
    init(_ report: PortReport) {
        switch report.state {
        case .device(let bus, let text): self.init(number: report.number, state: .device, bus: bus, text: text)
        case .waiting(let wanted): self.init(number: report.number, state: .waiting, text: wanted)
        case .failed(let reason): self.init(number: report.number, state: .failed, text: reason)
        }
    }
}

extension Report.Histogram {
    fileprivate init(_ name: String, _ histogram: LatencyHistogram) {
        self.init(name: name, buckets: histogram.buckets.map { Int64(clamping: $0) })
    }
}

extension BackendFailure {
    /// As an answer to a call about `path`.
    func answer(_ path: DevicePath) -> ControlError {
        switch kind {
        case .unsupported: .notSupported(reason: text)
        case .notFound, .busy, .denied, .invalid, .frontend, .host: .deviceFailed(reason: text)
        }
    }
}
