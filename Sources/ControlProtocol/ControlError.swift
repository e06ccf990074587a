// The errors a call can be answered with, on the wire and in words.

/// A negative answer (`error` of a Varlink reply).
public enum ControlError: Error, Equatable, Sendable {
    // org.xenback.control
    case noSuchDomain(String)
    case noSuchDevice(domain: String, device: String)
    case ambiguousDevice(domain: String, device: String, candidates: [String])
    case badDiskLine(reason: String, position: Int)
    case badUSBLine(reason: String, position: Int)
    case deviceFailed(reason: String)
    case timedOut(reason: String)
    case workerUnavailable(reason: String)
    case notSupported(reason: String)
    case malformedMessage(reason: String)
    // org.varlink.service
    case interfaceNotFound(String)
    case methodNotFound(String)
    case methodNotImplemented(String)
    case invalidParameter(String)
    case permissionDenied
    case expectedMore
    /// An error that this program does not know, from a newer daemon.
    case other(name: String)

    /// The error's full name, as it is on the wire.
    public var name: String {
        switch self {
        case .noSuchDomain: "org.xenback.control.NoSuchDomain"
        case .noSuchDevice: "org.xenback.control.NoSuchDevice"
        case .ambiguousDevice: "org.xenback.control.AmbiguousDevice"
        case .badDiskLine: "org.xenback.control.BadDiskLine"
        case .badUSBLine: "org.xenback.control.BadUSBLine"
        case .deviceFailed: "org.xenback.control.DeviceFailed"
        case .timedOut: "org.xenback.control.TimedOut"
        case .workerUnavailable: "org.xenback.control.WorkerUnavailable"
        case .notSupported: "org.xenback.control.NotSupported"
        case .malformedMessage: "org.xenback.control.MalformedMessage"
        case .interfaceNotFound: "org.varlink.service.InterfaceNotFound"
        case .methodNotFound: "org.varlink.service.MethodNotFound"
        case .methodNotImplemented: "org.varlink.service.MethodNotImplemented"
        case .invalidParameter: "org.varlink.service.InvalidParameter"
        case .permissionDenied: "org.varlink.service.PermissionDenied"
        case .expectedMore: "org.varlink.service.ExpectedMore"
        case .other(let name): name
        }
    }
}

extension ControlError: CustomStringConvertible {
    /// One line for the person at the terminal.
    public var description: String {
        switch self {
        case .noSuchDomain(let domain): "no domain '\(domain)' (xl list shows the domains of this host)"
        case .noSuchDevice(let domain, let device):
            "domain \(domain) has no device '\(device)' of ours (xenback list shows them all)"
        case .ambiguousDevice(let domain, let device, let candidates):
            "domain \(domain) has several devices '\(device)'; say which: \(candidates.joined(separator: " or "))"
        case .badDiskLine(let reason, let position): "disk line, character \(position + 1): \(reason)"
        case .badUSBLine(let reason, let position): "USB line, character \(position + 1): \(reason)"
        case .deviceFailed(let reason), .timedOut(let reason), .workerUnavailable(let reason),
            .notSupported(let reason):
            reason
        case .malformedMessage(let reason): "the daemon did not understand the message: \(reason)"
        case .interfaceNotFound(let name): "the daemon has no interface '\(name)'"
        case .methodNotFound(let name), .methodNotImplemented(let name):
            "the running xenbackd does not know '\(name)': it is older than this xenback"
        case .invalidParameter(let name): "the daemon refuses the value of '\(name)'"
        case .permissionDenied: "permission denied: be root, or the user xenbackd runs as"
        case .expectedMore: "the call must ask for more than one answer"
        case .other(let name): "the daemon answers \(name)"
        }
    }
}

extension ControlError {
    /// The parameters of all errors, flat: each error sets its own.
    struct Parameters: Codable, Equatable {
        var domain: String?
        var device: String?
        var reason: String?
        var position: Int?
        var interface: String?
        var method: String?
        var parameter: String?
    }

    var parameters: Parameters {
        switch self {
        case .noSuchDomain(let domain): Parameters(domain: domain)
        case .noSuchDevice(let domain, let device): Parameters(domain: domain, device: device)
        case .ambiguousDevice(let domain, let device, let candidates):
            Parameters(domain: domain, device: device, reason: candidates.joined(separator: ", "))
        case .badDiskLine(let reason, let position), .badUSBLine(let reason, let position):
            Parameters(reason: reason, position: position)
        case .deviceFailed(let reason), .timedOut(let reason), .workerUnavailable(let reason),
            .notSupported(let reason), .malformedMessage(let reason):
            Parameters(reason: reason)
        case .interfaceNotFound(let name): Parameters(interface: name)
        case .methodNotFound(let name), .methodNotImplemented(let name): Parameters(method: name)
        case .invalidParameter(let name): Parameters(parameter: name)
        case .permissionDenied, .expectedMore, .other: Parameters()
        }
    }

    init(name: String, parameters: Parameters) {
        let reason = parameters.reason ?? "no reason given"
        let method = parameters.method ?? "?"
        let known: [ControlError] = [
            .noSuchDomain(parameters.domain ?? "?"),
            .noSuchDevice(domain: parameters.domain ?? "?", device: parameters.device ?? "?"),
            .ambiguousDevice(
                domain: parameters.domain ?? "?",
                device: parameters.device ?? "?",
                candidates: reason.split(separator: ", ").map(String.init)
            ),
            .badDiskLine(reason: reason, position: parameters.position ?? 0),
            .badUSBLine(reason: reason, position: parameters.position ?? 0),
            .deviceFailed(reason: reason), .timedOut(reason: reason), .workerUnavailable(reason: reason),
            .notSupported(reason: reason), .malformedMessage(reason: reason),
            .interfaceNotFound(parameters.interface ?? "?"), .methodNotFound(method), .methodNotImplemented(method),
            .invalidParameter(parameters.parameter ?? "?"), .permissionDenied, .expectedMore,
        ]
        self = known.first { $0.name == name } ?? .other(name: name)
    }
}
