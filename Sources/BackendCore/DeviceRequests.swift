// What is asked of a device, by whom, and how it is refused.

public import HostIO
public import XenWire

/// The keys of one backend directory, read in one go.
public struct BackendNodes: Sendable {
    public let path: DevicePath
    /// The domain we run in.
    public let own: DomainID
    /// Names below the directory and their values.
    public let values: [String: String]

    public init(path: DevicePath, own: DomainID, values: [String: String]) {
        self.path = path
        self.own = own
        self.values = values
    }

    public subscript(name: String) -> String? { values[name] }
}

/// A request that cannot be fulfilled; `text` tells the person who asked everything.
public struct BackendFailure: Error, Hashable, Sendable, CustomStringConvertible {
    /// What kind of failure it is, and so who has to act.
    public enum Kind: String, Hashable, Sendable {
        /// No such image, device, domain.
        case notFound
        /// In use by someone else, who is named in `text`.
        case busy
        /// The host denies it.
        case denied
        /// The request or a key makes no sense.
        case invalid
        /// A valid request, but not for this device or not in this state.
        case unsupported
        /// The frontend broke the protocol.
        case frontend
        /// The host failed: I/O, memory, hypervisor, xenstored.
        case host
    }
    public let kind: Kind
    public let text: String
    /// It may resolve itself: memory is freed, a dead predecessor's port or lock is released. Only a device that is
    /// being attached waits for that (`DeviceShell.wait`).
    public let mayPass: Bool

    /// - Parameter mayPass: nil for the default of `kind`: true for `busy` and `host`.
    public init(_ kind: Kind, _ text: String, mayPass: Bool? = nil) {
        self.kind = kind
        self.text = text
        self.mayPass = mayPass ?? (kind == .busy || kind == .host)
    }
    public var description: String { text }
}

extension BackendFailure {
    /// A host failure, as it is reported to the device's owner.
    public init(_ failure: HostFailure) {
        let kind: Kind =
            switch failure.kind {
            case .notFound: .notFound
            case .busy: .busy
            case .denied: .denied
            case .invalid: .invalid
            case .host: .host
            }
        self.init(kind, failure.text)
    }
}
