// What every device's shell carries: the handshake, events that wait for their turn, and who is to be told.

public import Hypervisor
public import Logging
internal import Synchronization
public import XenWire

/// The part of a device's state that has nothing to do with its class. `DeviceShell` works on it.
public struct DeviceLife: Sendable {
    /// nil before `run`.
    public internal(set) var handshake: Handshake?
    /// The states as last read.
    public internal(set) var snapshot: HandshakeSnapshot?
    public internal(set) var isFinished = false
    /// Stopped for a successor: XenStore and journal stay as they are.
    public internal(set) var isDraining = false
    /// Carries domain and device.
    public let logger: Logger
    public var log: FaultLog

    /// The frontend's directory; empty before `run`.
    public internal(set) var frontend = ""
    var events: [HandshakeEvent] = []
    /// What the device is waiting for the host to do; nil if nothing.
    var waitingFor: String?
    /// The attach in progress, or the last one.
    var attaching: Task<Void, Never>?
    /// What XenStore does not give.
    var trouble = XenStoreTrouble()
    var lines = RateLimiter(burst: 32, interval: .seconds(5))
    var reportedFault = false
    var stopped: [CheckedContinuation<Void, Never>] = []
    var scripts: [CheckedContinuation<BackendFailure?, Never>] = []

    /// - Parameter environment: its logger gets the device's name added.
    public init(_ path: DevicePath, _ environment: WorkerEnvironment) {
        var logger = environment.logger
        logger[metadataKey: "device"] = "\(path)"
        self.logger = logger
        log = FaultLog(logger)
    }

    /// What the device is doing, for people.
    public var phase: String {
        if isFinished { return "gone" }
        if isDraining { return "stopping" }
        if let waitingFor { return "waiting for \(waitingFor)" }
        if case .serving = handshake?.phase { return "connected" }
        return handshake.map { "waiting for \($0.awaited)" } ?? "starting"
    }

    /// It has just started or is taking a device over, so what it will serve is not known yet.
    public var isStartingUp: Bool {
        switch handshake?.phase {
        case nil, .starting, .opening, .connecting: !isFinished && !isDraining
        default: false
        }
    }

    /// Whether what is being opened or attached is still needed.
    public var isWanted: Bool { !isFinished && !isDraining && (handshake?.isWanted ?? false) }

    var isServing: Bool {
        if case .serving = handshake?.phase { true } else { false }
    }

    /// Logs what the device does. A frontend can keep it busy for ever, but not make it log for ever (XSA-43).
    public mutating func say(_ text: @autoclosure () -> String, level: Logger.Level = .info) {
        guard let suppressed = lines.allow() else { return }
        let text = text()
        logger.log(level: level, "\(suppressed > 0 ? "\(text) (\(suppressed) lines were left out)" : text)")
    }
}

/// How a queue, on its own loop, tells its device that the connection broke down. The first breakdown is kept.
public final class BreakdownLatch: Sendable {
    private let first = Mutex<Breakdown?>(nil)
    private let signal: WatchSignal

    /// - Parameter signal: the device's.
    public init(_ signal: WatchSignal) { self.signal = signal }

    public func raise(_ breakdown: Breakdown) {
        first.withLock { $0 = $0 ?? breakdown }
        signal.raise()
    }
    /// The connection's first breakdown.
    public var raised: Breakdown? { first.withLock { $0 } }
}
