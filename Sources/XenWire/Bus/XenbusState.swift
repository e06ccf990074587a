// The states both ends of a device walk through (public/io/xenbus.h).

/// The value of a `state` node.
public enum XenbusState: UInt8, Hashable, Sendable, CaseIterable, CustomStringConvertible {
    case unknown = 0
    case initialising = 1
    /// Early initialisation finished, waiting for the peer or for the hotplug scripts.
    case initWait = 2
    /// Waiting for a connection from the peer.
    case initialised = 3
    case connected = 4
    case closing = 5
    case closed = 6
    case reconfiguring = 7
    case reconfigured = 8

    /// Parses a node's text: one digit 0 … 8, nothing else.
    public init?(text: some StringProtocol) {
        guard text.utf8.count == 1, let number = UInt8(decimal: text) else { return nil }
        self.init(rawValue: number)
    }

    /// What is written into the node.
    public var text: String { String(rawValue) }

    /// As public/io/xenbus.h spells it: `initWait`.
    public var headerName: String { self == .initWait ? "initWait" : description }

    /// From `headerName`; nil for any other text.
    public init?(headerName: String) {
        guard let state = XenbusState.allCases.first(where: { $0.headerName == headerName }) else { return nil }
        self = state
    }

    public var description: String {
        switch self {
        case .unknown: "unknown"
        case .initialising: "initialising"
        case .initWait: "init-wait"
        case .initialised: "initialised"
        case .connected: "connected"
        case .closing: "closing"
        case .closed: "closed"
        case .reconfiguring: "reconfiguring"
        case .reconfigured: "reconfigured"
        }
    }
}
