// What hostile frontends share: granted pages, rings, and a well-behaved way to connect for tests that want it.

public import Hypervisor
internal import SharedRing
internal import XenWire

/// A frontend of hostile tests and fuzzers. It does nothing by itself: no state machine, no flow control, no thread.
/// The caller can corrupt every word of its rings, every key and every grant.
public protocol RawFrontend: Sendable {
    var hypervisor: any Hypervisor { get }
    var bus: FrontendBus { get }
}

extension RawFrontend {
    /// Grants pages for data to the backend. They end with the last reference to the result.
    public func makePages(
        _ count: Int,
        access: GrantAccess = .readWrite
    ) async throws(FrontendFailure) -> SharedGrant {
        let backend = try await bus.backend().domain
        let sharing = hypervisor.sharing
        return try FrontendDrivers.hypervisor { () throws(HypervisorFailure) in
            try sharing.share(pageCount: count, with: backend, access: access)
        }
    }

    /// Grants a ring and allocates its port.
    func makeRing(stride: Int, pageCount: Int = 1) async throws(FrontendFailure) -> RawRing {
        try RawRing(hypervisor, backend: try await bus.backend().domain, stride: stride, pageCount: pageCount)
    }

    /// Connects as a well-behaved frontend would: waits for 2, writes `keys`, goes to `state`, waits for 4.
    /// - Parameter prepare: run between the keys and the state.
    func connect(
        publishing keys: [(String, String?)],
        announcing state: XenbusState = .connected,
        preparing prepare: () -> Void = {}
    ) async throws(FrontendFailure) {
        let backend = try await bus.backend().path
        _ = try await bus.wait(for: [.initWait], of: backend)
        try await bus.publish(keys)
        prepare()
        try await bus.publish(state)
        let reached = try await bus.wait(for: [.connected, .closing, .closed], of: backend)
        guard reached == .connected else { throw .timedOut(waitingFor: [.connected], saw: reached) }
    }
}
