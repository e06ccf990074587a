// The nodes of XenStore as a value: reads, writes, permissions and quotas, without connections or watches.

internal import Hypervisor
internal import SystemPackage
internal import XenWire

/// The caller.
struct StoreCaller: Hashable, Sendable {
    let domain: DomainID
    /// dom0 and what the machine calls privileged: may do all, has no quota.
    let privileged: Bool
}

/// A path that changed, and who may learn of it.
struct XenStoreChange: Sendable {
    let path: String
    /// Only a watch on exactly this path fires: nodes below a removed one (xenstored_core.c, `delete_node`).
    let exact: Bool
    /// A watcher may read the node or its parent by one of these, before or after the change (XSA-115).
    let visibility: [[XenStorePermission]]
}

/// What xenstored refuses an unprivileged domain (the defaults of Xen 4.17).
public struct XenStoreQuota: Sendable {
    public var nodesPerDomain = 1000
    public var bytesPerNode = 2048
    public var watchesPerDomain = 128
    public var transactionsPerDomain = 10
    public var permissionsPerNode = 5
    public init() {}
}

/// The tree. A mutation either happens as a whole or throws and changes nothing.
struct XenStoreTree: Sendable {
    struct Node: Sendable {
        var value: [UInt8]
        var children: Set<String> = []
        var permissions: [XenStorePermission]
        /// Changes whenever value, children or permissions do.
        var generation: UInt64
        var owner: DomainID { permissions.first?.domain ?? .initial }
    }

    /// Bytes of one message's payload (xs_wire.h, `XENSTORE_PAYLOAD_MAX`).
    static let payloadMaximum = 4096

    private(set) var nodes: [String: Node]
    private var generation: UInt64 = 1
    private var owned: [DomainID: Int] = [:]
    var quota = XenStoreQuota()

    init() {
        let permissions = [XenStorePermission(.initial, .none)]
        nodes = ["/": Node(value: [], permissions: permissions, generation: 0)]
    }

    /// Nodes that `domain` owns.
    func ownedNodes(of domain: DomainID) -> Int { owned[domain] ?? 0 }

    // MARK: reading

    func read(_ path: String, as caller: StoreCaller) throws(Errno) -> [UInt8] {
        try node(path, need: .read, as: caller).value
    }

    func directory(_ path: String, as caller: StoreCaller) throws(Errno) -> [String] {
        try node(path, need: .read, as: caller).children.sorted()
    }

    func permissions(_ path: String, as caller: StoreCaller) throws(Errno) -> [XenStorePermission] {
        try node(path, need: .read, as: caller).permissions
    }

    // MARK: changing

    mutating func write(
        _ path: String,
        _ value: [UInt8],
        as caller: StoreCaller
    ) throws(Errno) -> [XenStoreChange] {
        guard value.count <= Self.payloadMaximum else { throw .argListTooLong }
        if let old = nodes[path] {
            guard Self.allows(old.permissions, .write, caller) else { throw .permissionDenied }
            var new = old
            new.value = value
            try checkSize(new, as: caller)
            replace(path, with: new)
        } else {
            try create(path, value, as: caller)
        }
        return [change(path, exact: false)]
    }

    /// Removes a node and all below it.
    /// - Throws: `ENOENT` if it does not exist, `EINVAL` for the root.
    mutating func remove(_ path: String, as caller: StoreCaller) throws(Errno) -> [XenStoreChange] {
        _ = try node(path, need: .write, as: caller)
        guard let parent = XenStorePath.parent(of: path) else { throw .invalidArgument }
        var changes = [change(path, exact: false)]
        for below in descendants(of: path) { changes.append(change(below, exact: true)) }
        for gone in changes { forget(gone.path) }
        if var above = nodes[parent] {
            above.children.remove(XenStorePath.name(of: path))
            replace(parent, with: above)
        }
        return changes
    }

    mutating func setPermissions(
        _ path: String,
        _ permissions: [XenStorePermission],
        as caller: StoreCaller
    ) throws(Errno) -> [XenStoreChange] {
        var node = try node(path, need: .write, as: caller)
        guard let owner = permissions.first?.domain else { throw .invalidArgument }
        if !caller.privileged {
            guard node.owner == caller.domain else { throw .permissionDenied }
            guard owner == caller.domain else { throw .notPermitted }
            guard permissions.count <= quota.permissionsPerNode else { throw .noSpace }
        }
        let before = change(path, exact: false)
        owned[node.owner, default: 1] -= 1
        owned[owner, default: 0] += 1
        node.permissions = permissions
        replace(path, with: node)
        let after = change(path, exact: false)
        return [XenStoreChange(path: path, exact: false, visibility: before.visibility + after.visibility)]
    }

    /// Takes a dead domain out of every node's permissions, so that a later domain of the same number inherits
    /// nothing (XSA-322). Its own nodes go to dom0.
    mutating func disown(_ domain: DomainID) {
        for (path, node) in nodes where node.permissions.contains(where: { $0.domain == domain }) {
            var node = node
            let others = node.permissions.dropFirst().filter { $0.domain != domain }
            if let first = node.permissions.first {
                let owner = first.domain == domain ? XenStorePermission(.initial, .none) : first
                node.permissions = [owner] + others
            }
            nodes[path] = node
        }
        owned[.initial, default: 0] += owned.removeValue(forKey: domain) ?? 0
    }

    // MARK: inside

    private func node(
        _ path: String,
        need access: XenStorePermission.Access,
        as caller: StoreCaller
    ) throws(Errno) -> Node {
        if let node = nodes[path] {
            guard Self.allows(node.permissions, access, caller) else { throw .permissionDenied }
            return node
        }
        let above = nodes[nearestAncestor(of: path)]
        guard let above, Self.allows(above.permissions, access, caller) else { throw .permissionDenied }
        throw .noSuchFileOrDirectory
    }

    /// The closest existing node above `path`.
    func nearestAncestor(of path: String) -> String {
        var above = XenStorePath.parent(of: path) ?? "/"
        while nodes[above] == nil, let next = XenStorePath.parent(of: above) { above = next }
        return above
    }

    /// All nodes below `path`, in no order.
    func descendants(of path: String) -> [String] {
        var found: [String] = []
        var open = [path]
        while let next = open.popLast() {
            for name in nodes[next]?.children ?? [] {
                let child = XenStorePath.child(name, of: next)
                found.append(child)
                open.append(child)
            }
        }
        return found
    }

    private mutating func create(_ path: String, _ value: [UInt8], as caller: StoreCaller) throws(Errno) {
        let ancestor = nearestAncestor(of: path)
        guard let above = nodes[ancestor], Self.allows(above.permissions, .write, caller) else {
            throw .permissionDenied
        }
        // xenstored_core.c, construct_node: the parent's permissions, but an unprivileged creator owns what it creates.
        var permissions = above.permissions
        if !caller.privileged { permissions[0] = XenStorePermission(caller.domain, permissions[0].access) }
        var missing = [path]
        while let parent = XenStorePath.parent(of: missing[missing.count - 1]), parent != ancestor {
            missing.append(parent)
        }
        let owner = permissions[0].domain
        if !caller.privileged, ownedNodes(of: owner) + missing.count > quota.nodesPerDomain { throw .noSpace }
        let leaf = Node(value: value, permissions: permissions, generation: 0)
        try checkSize(leaf, as: caller)
        var parent = above
        parent.children.insert(XenStorePath.name(of: missing[missing.count - 1]))
        try checkSize(parent, as: caller)
        replace(ancestor, with: parent)
        for index in missing.indices.reversed() {
            var node = Node(value: [], permissions: permissions, generation: 0)
            if index == 0 { node = leaf } else { node.children = [XenStorePath.name(of: missing[index - 1])] }
            replace(missing[index], with: node)
        }
        owned[owner, default: 0] += missing.count
    }

    private func checkSize(_ node: Node, as caller: StoreCaller) throws(Errno) {
        guard !caller.privileged else { return }
        let names = node.children.reduce(0) { $0 + $1.utf8.count + 1 }
        guard node.value.count + names + node.permissions.count * 8 <= quota.bytesPerNode else { throw .noSpace }
    }

    private mutating func replace(_ path: String, with node: Node) {
        generation += 1
        var node = node
        node.generation = generation
        nodes[path] = node
    }

    private mutating func forget(_ path: String) {
        guard let node = nodes.removeValue(forKey: path) else { return }
        owned[node.owner, default: 1] -= 1
    }

    private func change(_ path: String, exact: Bool) -> XenStoreChange {
        let parent = XenStorePath.parent(of: path).flatMap { nodes[$0] }
        let visibility = [nodes[path]?.permissions, parent?.permissions].compactMap { $0 }
        return XenStoreChange(path: path, exact: exact, visibility: visibility)
    }

    /// xenstored_core.c, `perm_for_conn`: the owner and privileged callers may do all, others what their entry says,
    /// or the first entry if they have none.
    static func allows(
        _ permissions: [XenStorePermission],
        _ access: XenStorePermission.Access,
        _ caller: StoreCaller
    ) -> Bool {
        guard !caller.privileged, let first = permissions.first, first.domain != caller.domain else { return true }
        let entry = permissions.dropFirst().first { $0.domain == caller.domain } ?? first
        return entry.access == .readWrite || entry.access == access
    }
}
