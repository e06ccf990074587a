// One transaction: a private tree, what it looked at, and whether that is still true at the end.

internal import Hypervisor
internal import SystemPackage

/// A transaction under way. It sees the tree as it was at the start plus its own changes; at the end everything it read
/// or changed must be as it was, or it fails with EAGAIN (xenstored_transaction.c compares generations the same way, so
/// two transactions that create siblings conflict: both change the parent's list of children).
struct XenStoreTransaction: Sendable {
    enum Mutation: Sendable {
        case write(String, [UInt8])
        case remove(String)
        case setPermissions(String, [XenStorePermission])
    }

    private let start: XenStoreTree
    private var tree: XenStoreTree
    private var seen: Set<String> = []
    private var log: [Mutation] = []
    let caller: StoreCaller

    init(on tree: XenStoreTree, caller: StoreCaller) {
        start = tree
        self.tree = tree
        self.caller = caller
    }

    mutating func read(_ path: String) throws(Errno) -> [UInt8] {
        look(at: path)
        return try tree.read(path, as: caller)
    }

    mutating func directory(_ path: String) throws(Errno) -> [String] {
        look(at: path)
        return try tree.directory(path, as: caller)
    }

    mutating func permissions(_ path: String) throws(Errno) -> [XenStorePermission] {
        look(at: path)
        return try tree.permissions(path, as: caller)
    }

    mutating func apply(_ mutation: Mutation) throws(Errno) {
        switch mutation {
        case .write(let path, _), .setPermissions(let path, _):
            look(at: path)
        case .remove(let path):
            look(at: path)
            if let parent = XenStorePath.parent(of: path) { look(at: parent) }
            seen.formUnion(tree.descendants(of: path))
        }
        _ = try tree.apply(mutation, as: caller)
        log.append(mutation)
    }

    /// Applies all changes to `live`.
    /// - Throws: `EAGAIN` if something it saw has changed meanwhile; or what a change throws now. `live` is unchanged.
    func commit(to live: inout XenStoreTree) throws(Errno) -> [XenStoreChange] {
        for path in seen where live.nodes[path]?.generation != start.nodes[path]?.generation {
            throw .resourceTemporarilyUnavailable
        }
        var result = live
        var changes: [XenStoreChange] = []
        for mutation in log { changes += try result.apply(mutation, as: caller) }
        live = result
        return changes
    }

    private mutating func look(at path: String) {
        seen.insert(path)
        if tree.nodes[path] == nil { seen.insert(tree.nearestAncestor(of: path)) }
    }
}

extension XenStoreTree {
    mutating func apply(
        _ mutation: XenStoreTransaction.Mutation,
        as caller: StoreCaller
    ) throws(Errno) -> [XenStoreChange] {
        switch mutation {
        case .write(let path, let value): try write(path, value, as: caller)
        case .remove(let path): try remove(path, as: caller)
        case .setPermissions(let path, let permissions): try setPermissions(path, permissions, as: caller)
        }
    }
}
