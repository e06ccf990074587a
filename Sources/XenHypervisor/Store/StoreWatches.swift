// The active watches, by token, so that they can be set again on a new connection.

internal import Hypervisor

/// Used by the store's thread only. Events only raise a signal, whatever their number (XSA-349).
final class StoreWatches {
    private struct Entry {
        let path: String
        let signal: WatchSignal
        /// Whether the present connection knows it.
        var isRegistered: Bool
    }

    private var entries: [String: Entry] = [:]
    private var lastToken: UInt64 = 0

    /// Adds a watch that no connection knows yet.
    func add(_ path: String, _ signal: WatchSignal) -> String {
        lastToken += 1
        let token = String(lastToken)
        entries[token] = Entry(path: path, signal: signal, isRegistered: false)
        return token
    }

    /// - Returns: the path, if the connection must be told.
    func remove(_ token: String) -> String? {
        guard let entry = entries.removeValue(forKey: token), entry.isRegistered else { return nil }
        return entry.path
    }

    var isEmpty: Bool { entries.isEmpty }
    func raise(token: String) { entries[token]?.signal.raise() }
    func registered(_ token: String) { entries[token]?.isRegistered = true }

    /// Tokens and paths that the present connection does not know.
    var unregistered: [(token: String, path: String)] {
        entries.compactMap { $0.value.isRegistered ? nil : ($0.key, $0.value.path) }
    }

    /// The connection is gone. Changes until the next one are covered by each watch's initial event.
    func forgetConnection() {
        for token in entries.keys { entries[token]?.isRegistered = false }
    }
}
