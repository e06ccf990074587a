// What a USB controller and its ports tell about themselves.

/// The facts of one controller.
public struct ControllerReport: Hashable, Sendable {
    /// 1 or 2; nil before the toolstack's keys were read.
    public var version: UInt8?
    public var portCount: Int?
    /// What was negotiated, for people; nil while no frontend is connected.
    public var connection: String?
    /// The ports that have a device, or are assigned one, in order.
    public var ports: [PortReport] = []

    public init() {}

    var details: [DeviceReport.Detail] {
        var details: [DeviceReport.Detail] = []
        if let version { details.append(.init("version", "\(version)")) }
        if let portCount { details.append(.init("ports", "\(portCount)")) }
        if let connection { details.append(.init("connection", connection)) }
        return details + ports.map { .init("port \($0.number)", $0.text) }
    }
}

/// The facts of one port.
public struct PortReport: Hashable, Sendable {
    public enum State: Hashable, Sendable {
        /// A host device is attached: its bus ID (`1-1.4`), and a description for people.
        case device(bus: String, description: String)
        /// No host device matches what the toolstack wrote yet.
        case waiting(for: String)
        /// The assigned device cannot be attached; the reason.
        case failed(String)
    }
    /// From 1.
    public var number: Int
    public var state: State

    public init(_ number: Int, _ state: State) {
        self.number = number
        self.state = state
    }

    var text: String {
        switch state {
        case .device(_, let description): description
        case .waiting(let wanted): "waiting for \(wanted)"
        case .failed(let reason): "failed: \(reason)"
        }
    }
}
