// What frontend and backend agree on, read once from the frontend's keys: no grant and no port may be named twice.

internal import Hypervisor
public import XenWire

/// The facts of one connection. What must be read in the second round depends on the first.
public protocol NegotiatedConnection: Sendable {
    /// What the backend offers, before any frontend is there.
    associatedtype Capabilities: Sendable
    /// Keys below the frontend's directory to read first.
    static var firstKeys: [String] { get }
    /// Keys to read next, a bounded number; none if the first are wrong already.
    static func furtherKeys(_ first: FrontendNodes, _ capabilities: Capabilities) -> [String]
    init(_ reader: inout FrontendNodeReader, _ capabilities: Capabilities) throws(FrontendNodeFault)
}

extension NegotiatedConnection {
    public static func furtherKeys(_ first: FrontendNodes, _ capabilities: Capabilities) -> [String] { [] }

    /// - Parameter keys: the values of both rounds.
    public init(_ keys: FrontendNodes, _ capabilities: Capabilities) throws(FrontendNodeFault) {
        var reader = FrontendNodeReader(keys)
        try self.init(&reader, capabilities)
    }
}

/// Reads a frontend's keys, and refuses grants and ports that were named before: two rings on one page, or two queues on
/// one port, are never what a driver means.
public struct FrontendNodeReader: Sendable {
    public let keys: FrontendNodes
    private var references: Set<GrantReference> = []
    private var ports: Set<EventChannelPort> = []

    public init(_ keys: FrontendNodes) { self.keys = keys }

    public subscript(key: String) -> String? { keys[key] }

    /// A number that must be there.
    public func number(_ key: String, in range: ClosedRange<UInt32>) throws(FrontendNodeFault) -> UInt32 {
        try keys.number(key, in: range)
    }

    /// A feature that is there or not.
    public func flag(_ key: String) -> Bool { keys.flag(key) }

    /// A grant that no other key names.
    public mutating func reference(_ key: String) throws(FrontendNodeFault) -> GrantReference {
        let reference = try keys.reference(key)
        guard references.insert(reference).inserted else {
            throw FrontendNodeFault(key, "repeats grant \(reference.rawValue)")
        }
        return reference
    }

    /// A port that no other key names.
    public mutating func port(_ key: String) throws(FrontendNodeFault) -> EventChannelPort {
        let port = try keys.port(key)
        guard ports.insert(port).inserted else { throw FrontendNodeFault(key, "repeats port \(port.rawValue)") }
        return port
    }
}

extension DeviceShell {
    /// Reads the frontend's keys in one go and agrees on a connection.
    /// - Throws: `frontend` if its keys make no sense.
    public func negotiate<Connection: NegotiatedConnection>(
        _ capabilities: Connection.Capabilities
    ) async throws(BackendFailure) -> Connection {
        let frontend = life.frontend
        let values = await persist("read the frontend's keys") {
            (store) throws(HypervisorFailure) -> [String: String] in
            var values: [String: String] = [:]
            for name in Connection.firstKeys { values[name] = try store.read("\(frontend)/\(name)") }
            for name in Connection.furtherKeys(FrontendNodes(values), capabilities) {
                values[name] = try store.read("\(frontend)/\(name)")
            }
            return values
        }
        do throws(FrontendNodeFault) {
            return try Connection(FrontendNodes(values), capabilities)
        } catch {
            throw BackendFailure(.frontend, "the frontend's keys: \(error)")
        }
    }
}
