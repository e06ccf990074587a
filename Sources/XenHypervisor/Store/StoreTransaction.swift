// Transactions: run, commit, and retry on a conflict.

internal import Hypervisor
internal import SystemPackage
internal import XenWire

extension StoreCore {
    /// See `XenStore.transaction`. If the connection breaks exactly at the commit, the body runs again although its
    /// first run may have been committed: that cannot be known.
    func transaction<R>(
        _ body: (any XenStoreOperations) throws(HypervisorFailure) -> R
    ) throws(HypervisorFailure) -> R {
        for _ in 0..<100 {
            if let result = try attempt(body) { return result }
        }
        throw HypervisorFailure("commit a transaction in 100 attempts", .resourceTemporarilyUnavailable)
    }

    /// - Returns: nil if it must be tried again.
    private func attempt<R>(
        _ body: (any XenStoreOperations) throws(HypervisorFailure) -> R
    ) throws(HypervisorFailure) -> R? {
        let reply = try call(
            StoreMessage(kind: StoreMessage.Kind.transactionStart, payload: [0]),
            "start a transaction"
        )
        guard let id = UInt32(decimal: String(decoding: reply.prefix { $0 != 0 }, as: UTF8.self)), id != 0 else {
            throw HypervisorFailure("start a transaction", .protocolError)
        }
        let generation = generation
        do throws(HypervisorFailure) {
            let result = try body(StoreOperations(self, transaction: id))
            // The body may have swallowed a failure: a transaction of a connection that is gone cannot be committed.
            guard generation == self.generation else { return nil }
            try end(id, commit: true)
            return result
        } catch {
            let isConflict = error.errno == .resourceTemporarilyUnavailable
            // Ended by the commit, or with its connection, or here; a failure to abort changes nothing.
            if generation == self.generation { try? end(id, commit: false) }
            guard isConflict else { throw error }
            return nil
        }
    }

    private func end(_ id: UInt32, commit: Bool) throws(HypervisorFailure) {
        let verdict = UInt8(ascii: commit ? "T" : "F")
        _ = try call(
            StoreMessage(kind: StoreMessage.Kind.transactionEnd, transaction: id, payload: [verdict, 0]),
            commit ? "commit a transaction" : "abort a transaction"
        )
    }
}
