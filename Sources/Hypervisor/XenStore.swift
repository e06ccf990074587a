// XenStore: reads and writes in batches or transactions, and watches that coalesce.

public import XenWire

/// Who may do what with a node (xs_set_permissions; the first entry names the owner and everybody else's default).
public struct XenStorePermission: Hashable, Sendable {
    public enum Access: Hashable, Sendable { case none, read, write, readWrite }
    public let domain: DomainID
    public let access: Access
    public init(_ domain: DomainID, _ access: Access) {
        self.domain = domain
        self.access = access
    }
}

/// The synchronous operations, given to a closure that runs on the store's own thread.
///
/// Paths that do not start with `/` are relative to our own domain's home, as in libxenstore. Values are bytes without
/// a terminator; `read` returns nil where they are not UTF-8, as for a node that does not exist (a frontend's fault,
/// seen as a missing key).
public protocol XenStoreOperations {
    /// nil if the node does not exist (ENOENT) or we may not read it (EACCES).
    func read(_ path: String) throws(HypervisorFailure) -> String?
    /// Names of the children; nil if the node does not exist.
    func directory(_ path: String) throws(HypervisorFailure) -> [String]?
    /// Creates missing parents.
    func write(_ path: String, _ value: String) throws(HypervisorFailure)
    /// Removes a node and all below it; no error if it does not exist.
    func remove(_ path: String) throws(HypervisorFailure)
    func permissions(_ path: String) throws(HypervisorFailure) -> [XenStorePermission]?
    func setPermissions(_ path: String, _ permissions: [XenStorePermission]) throws(HypervisorFailure)
}

/// A connection to XenStore. Calls wait on the store's own thread, never on the caller's.
public protocol XenStore: AnyObject, Sendable {
    /// Runs several operations without a transaction, in order.
    func perform<R: Sendable>(
        _ body: @escaping @Sendable (any XenStoreOperations) throws(HypervisorFailure) -> R
    ) async throws(HypervisorFailure) -> R

    /// Runs `body` in a transaction, again and again while it ends with EAGAIN (at most 100 times; then EAGAIN).
    /// `body` must have no effect but through its operations.
    func transaction<R: Sendable>(
        _ body: @escaping @Sendable (any XenStoreOperations) throws(HypervisorFailure) -> R
    ) async throws(HypervisorFailure) -> R

    /// Raises `signal` once now and after each change of `path` or below it, until the watch is cancelled.
    /// `@introduceDomain` and `@releaseDomain` are paths too.
    func watch(_ path: String, raising signal: WatchSignal) async throws(HypervisorFailure) -> any Watch
}

/// A watch in force.
public protocol Watch: AnyObject, Sendable {
    /// Ends it; events already under way are dropped.
    func cancel() async
}

extension XenStore {
    /// One read; see `XenStoreOperations.read`.
    public func read(_ path: String) async throws(HypervisorFailure) -> String? {
        try await perform { (store) throws(HypervisorFailure) in try store.read(path) }
    }
    /// One directory; see `XenStoreOperations.directory`.
    public func directory(_ path: String) async throws(HypervisorFailure) -> [String]? {
        try await perform { (store) throws(HypervisorFailure) in try store.directory(path) }
    }
    /// One write.
    public func write(_ path: String, _ value: String) async throws(HypervisorFailure) {
        try await perform { (store) throws(HypervisorFailure) in try store.write(path, value) }
    }
    /// One removal.
    public func remove(_ path: String) async throws(HypervisorFailure) {
        try await perform { (store) throws(HypervisorFailure) in try store.remove(path) }
    }
}

/// Something under one of the watches has changed. A million events raise it once until it is taken (XSA-349), because
/// the receiver reads the present state, never the event.
public struct WatchSignal: Sendable {
    /// Yields once for any number of raises since the last element. One consumer.
    public let events: AsyncStream<Void>
    private let continuation: AsyncStream<Void>.Continuation

    public init() {
        (events, continuation) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
    }

    /// Thread-safe.
    public func raise() { continuation.yield() }
    /// Ends `events`.
    public func finish() { continuation.finish() }
}
