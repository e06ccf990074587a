// Devices as the control interface shows them: our own values turned into its texts.

internal import BackendCore
internal import ControlProtocol
internal import XenWire

/// What the broker or a worker knows of a device beside its report.
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
            backendState: report.backendState.headerName,
            frontendState: report.frontendState.headerName,
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
    }
}

extension Report.Histogram {
    fileprivate init(_ name: String, _ histogram: LatencyHistogram) {
        self.init(name: name, buckets: histogram.buckets.map { Int64(clamping: $0) })
    }
}

extension XenbusState? {
    /// As public/io/xenbus.h spells it: `initWait`.
    var headerName: String {
        switch self {
        case nil: "none"
        case .unknown: "unknown"
        case .initialising: "initialising"
        case .initWait: "initWait"
        case .initialised: "initialised"
        case .connected: "connected"
        case .closing: "closing"
        case .closed: "closed"
        case .reconfiguring: "reconfiguring"
        case .reconfigured: "reconfigured"
        }
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
