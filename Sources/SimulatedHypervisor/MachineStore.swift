// The machine as xenstored: transactions, watches and quotas of each connection over the one tree.

internal import Hypervisor
internal import SystemPackage
internal import XenWire

extension MachineState {
    /// Runs one operation in a connection's transaction, or on the live tree for transaction 0.
    private mutating func inTransaction<R>(
        _ number: UInt32,
        of id: UInt64,
        _ inside: (inout XenStoreTransaction) throws(Errno) -> R,
        live: (inout MachineState, StoreCaller) throws(Errno) -> R
    ) throws(Errno) -> R {
        guard let session = sessions[id] else { throw .noSuchProcess }
        if number == 0 { return try live(&self, session.caller) }
        guard var transaction = session.transactions[number] else { throw .noSuchFileOrDirectory }
        // Taken out while it is changed, so that its dictionaries are not copied.
        sessions[id]?.transactions[number] = nil
        defer { sessions[id]?.transactions[number] = transaction }
        return try inside(&transaction)
    }

    mutating func storeRead(_ path: String, in number: UInt32, of id: UInt64) throws(Errno) -> [UInt8] {
        try inTransaction(number, of: id) { (transaction) throws(Errno) in
            try transaction.read(path)
        } live: { (state, caller) throws(Errno) in
            try state.tree.read(path, as: caller)
        }
    }

    mutating func storeDirectory(_ path: String, in number: UInt32, of id: UInt64) throws(Errno) -> [String] {
        try inTransaction(number, of: id) { (transaction) throws(Errno) in
            try transaction.directory(path)
        } live: { (state, caller) throws(Errno) in
            try state.tree.directory(path, as: caller)
        }
    }

    mutating func storePermissions(
        _ path: String,
        in number: UInt32,
        of id: UInt64
    ) throws(Errno) -> [XenStorePermission] {
        try inTransaction(number, of: id) { (transaction) throws(Errno) in
            try transaction.permissions(path)
        } live: { (state, caller) throws(Errno) in
            try state.tree.permissions(path, as: caller)
        }
    }

    mutating func storeApply(
        _ mutation: XenStoreTransaction.Mutation,
        in number: UInt32,
        of id: UInt64
    ) throws(Errno) {
        try inTransaction(number, of: id) { (transaction) throws(Errno) in
            try transaction.apply(mutation)
        } live: { (state, caller) throws(Errno) in
            state.fire(try state.tree.apply(mutation, as: caller))
        }
    }

    mutating func startTransaction(of id: UInt64) throws(Errno) -> UInt32 {
        guard var session = sessions[id] else { throw .noSuchProcess }
        let open = sessions.values.filter { $0.serial == session.serial }.reduce(0) { $0 + $1.transactions.count }
        guard session.caller.privileged || open < tree.quota.transactionsPerDomain else { throw .noSpace }
        let number = session.nextNumber
        session.nextNumber += 1
        session.transactions[number] = XenStoreTransaction(on: tree, caller: session.caller)
        sessions[id] = session
        return number
    }

    mutating func endTransaction(_ number: UInt32, commit: Bool, of id: UInt64) throws(Errno) {
        guard let transaction = sessions[id]?.transactions.removeValue(forKey: number) else {
            throw .noSuchFileOrDirectory
        }
        if commit { fire(try transaction.commit(to: &tree)) }
    }

    // MARK: watches

    mutating func watch(_ path: String, token: UInt64, of id: UInt64) throws(Errno) {
        guard let session = sessions[id] else { throw .noSuchProcess }
        let held = sessions.values.filter { $0.serial == session.serial }.reduce(0) { $0 + $1.watches.count }
        guard session.caller.privileged || held < tree.quota.watchesPerDomain else { throw .argListTooLong }
        sessions[id]?.watches[token] = path
        raise(token, of: id)
    }

    mutating func unwatch(_ token: UInt64, of id: UInt64) throws(Errno) {
        guard sessions[id]?.watches.removeValue(forKey: token) != nil else { throw .noSuchFileOrDirectory }
        sessions[id]?.pending.removeAll { $0 == token }
    }

    mutating func takeEvents(of id: UInt64) -> [UInt64] {
        defer { sessions[id]?.pending = [] }
        return sessions[id]?.pending ?? []
    }

    /// Raises every watch that covers a change and whose owner may see it. However many changes there are, a watch is
    /// pending once.
    mutating func fire(_ changes: [XenStoreChange]) {
        for session in sessions.values where !session.watches.isEmpty {
            for (token, watched) in session.watches {
                let hit = changes.contains { change in
                    (change.exact ? watched == change.path : XenStorePath.covers(watched, change.path))
                        && change.visibility.contains { XenStoreTree.allows($0, .read, session.caller) }
                }
                if hit { raise(token, of: session.id) }
            }
        }
    }

    mutating func fireSpecial(_ name: String) {
        // Only dom0 sees these unless it sets other permissions (xenstored_domain.c, since XSA-115).
        let visibility = [[XenStorePermission(.initial, .none)]]
        fire([XenStoreChange(path: name, exact: false, visibility: visibility)])
    }

    private mutating func raise(_ token: UInt64, of id: UInt64) {
        guard let session = sessions[id], !session.pending.contains(token) else { return }
        sessions[id]?.pending.append(token)
        session.watchEvent.signal()
    }
}
