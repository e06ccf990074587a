// A frontend's half of a device in XenStore: where its backend is, states on both sides, waiting.

internal import HostIO
public import Hypervisor
public import XenWire

/// The XenStore side of one frontend device. Keys are relative to the frontend's own home, as in a guest.
public struct FrontendBus: Sendable {
    public let store: any XenStore
    /// `device/vbd/51712`.
    public let path: String

    public init(store: any XenStore, path: String) {
        self.store = store
        self.path = path
    }

    /// The backend's domain and its directory's absolute path, as our toolstack wrote them.
    public func backend() async throws(FrontendFailure) -> (domain: DomainID, path: String) {
        let path = path
        let (text, directory) = try await storing { () async throws(HypervisorFailure) in
            try await store.perform { (store) throws(HypervisorFailure) in
                (try store.read("\(path)/\(BusKeys.backendID)"), try store.read("\(path)/\(BusKeys.backend)"))
            }
        }
        guard let domain = text.flatMap({ DomainID(text: $0) }) else { throw .badKey(BusKeys.backendID, value: text) }
        guard let directory else { throw .badKey(BusKeys.backend, value: nil) }
        return (domain, directory)
    }

    /// Writes our keys in one transaction; nil removes a key.
    public func publish(_ keys: [(String, String?)]) async throws(FrontendFailure) {
        let path = path
        try await storing { () async throws(HypervisorFailure) in
            try await store.transaction { (store) throws(HypervisorFailure) in
                for (key, value) in keys {
                    if let value {
                        try store.write("\(path)/\(key)", value)
                    } else {
                        try store.remove("\(path)/\(key)")
                    }
                }
            }
        }
    }

    /// Writes our own state.
    public func publish(_ state: XenbusState) async throws(FrontendFailure) {
        let path = path
        try await storing { () async throws(HypervisorFailure) in
            try await store.write("\(path)/\(BusKeys.state)", state.text)
        }
    }

    /// Reads keys of a directory, absent ones left out.
    public func read(_ keys: [String], of directory: String) async throws(FrontendFailure) -> [String: String] {
        try await storing { () async throws(HypervisorFailure) in
            try await store.perform { (store) throws(HypervisorFailure) in
                var found: [String: String] = [:]
                for key in keys { found[key] = try store.read("\(directory)/\(key)") }
                return found
            }
        }
    }

    /// Waits until the state node of `directory` is one of `wanted`.
    /// - Throws: `timedOut`.
    public func wait(
        for wanted: [XenbusState],
        of directory: String,
        within limit: Duration = .seconds(10)
    ) async throws(FrontendFailure) -> XenbusState {
        let node = "\(directory)/\(BusKeys.state)"
        let signal = WatchSignal()
        let watch = try await storing { () async throws(HypervisorFailure) in
            try await store.watch(node, raising: signal)
        }
        let alarm = Task {
            try? await Task.sleep(for: limit)
            signal.finish()
        }
        var last: XenbusState?
        do throws(FrontendFailure) {
            for await _ in signal.events {
                let text = try await storing { () async throws(HypervisorFailure) in try await store.read(node) }
                last = text.flatMap { XenbusState(text: $0) }
                if let last, wanted.contains(last) { break }
            }
        } catch {
            alarm.cancel()
            await watch.cancel()
            throw error
        }
        alarm.cancel()
        await watch.cancel()
        guard let last, wanted.contains(last) else { throw .timedOut(waitingFor: wanted, saw: last) }
        return last
    }
}
