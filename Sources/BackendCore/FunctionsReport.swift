// What a guest's PCI buses tell about themselves.

/// The facts of the cards of one guest.
public struct FunctionsReport: Hashable, Sendable {
    /// How cards are laid out: `vpci`, `passthrough`, `slot`.
    public var mode: String
    /// What was negotiated, for people; nil while no frontend is connected.
    public var connection: String?
    /// In the order in which they came.
    public var functions: [FunctionReport] = []

    public init(mode: String) { self.mode = mode }

    var details: [DeviceReport.Detail] {
        var details = [DeviceReport.Detail("mode", mode)]
        if let connection { details.append(.init("connection", connection)) }
        return details + functions.map { .init($0.host, $0.text) }
    }
}

/// One card, or one that the guest was to have.
public struct FunctionReport: Hashable, Sendable {
    public enum State: Hashable, Sendable {
        /// Where the guest sees it, how it interrupts (`line`, `MSI`, `MSI-X (5)`), and whether it is `permissive`.
        case served(guest: String, interrupts: String, isPermissive: Bool)
        /// It cannot be had, for this reason.
        case failed(String)
    }
    /// On the host's buses: `0000:08:05.0`.
    public var host: String
    public var state: State

    public init(_ host: String, _ state: State) {
        self.host = host
        self.state = state
    }

    var text: String {
        switch state {
        case .served(let guest, let interrupts, let isPermissive):
            "\(guest) in the guest, interrupts by \(interrupts)\(isPermissive ? ", permissive" : "")"
        case .failed(let reason): "failed: \(reason)"
        }
    }
}
