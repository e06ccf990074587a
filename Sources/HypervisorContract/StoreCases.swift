// Promises of XenStore but for its watches.

internal import Glibc
internal import Hypervisor
internal import Synchronization
internal import SystemPackage
internal import XenWire

extension HypervisorContract {
    static let storeCases: [ContractCase] =
        [
            ContractCase("store: what is written is read, by everybody, and parents appear") { subject in
                let path = "\(subject.scratch)/a/b/c"
                for value in ["", "4", "line\nline", "Zürich", String(repeating: "x", count: 2000)] {
                    try await subject.backend.store.write(path, value)
                    try expectEqual(try await subject.backend.store.read(path), value, "the value")
                    try expectEqual(try await subject.neighbour.store.read(path), value, "the neighbour's value")
                }
                try expectEqual(try await subject.backend.store.read("\(subject.scratch)/a"), "", "the parent's value")
                try expectEqual(
                    try await subject.backend.store.directory("\(subject.scratch)/a"),
                    ["b"],
                    "its children"
                )
            },
            ContractCase("store: what is not there is nil, and its removal no error") { subject in
                let store = subject.backend.store
                try expectEqual(try await store.read("\(subject.scratch)/none"), nil, "the value")
                try expectEqual(try await store.directory("\(subject.scratch)/none"), nil, "the children")
                let found = try await store.perform { (store) throws(HypervisorFailure) in
                    try store.permissions("\(subject.scratch)/none")
                }
                try expectEqual(found, nil, "the permissions")
                try await store.remove("\(subject.scratch)/none")
                try await store.remove("\(subject.scratch)/none/below/it")
            },
            ContractCase("store: removal takes all below") { subject in
                let store = subject.backend.store
                try await store.write("\(subject.scratch)/a/b/c", "1")
                try await store.write("\(subject.scratch)/a/d", "1")
                try await store.remove("\(subject.scratch)/a")
                try expectEqual(try await store.read("\(subject.scratch)/a/b/c"), nil, "the grandchild")
                try expectEqual(try await store.directory(subject.scratch), [], "the children that are left")
            },
            ContractCase("store: a directory longer than one message is whole") { subject in
                let names = (0..<500).map { "a-child-with-a-long-name-\($0)" }
                try await subject.backend.store.perform { (store) throws(HypervisorFailure) in
                    for name in names { try store.write("\(subject.scratch)/\(name)", "") }
                }
                let found = try await subject.backend.store.directory(subject.scratch)
                try expectEqual(found.map { Set($0) }, Set(names), "the set of children")
                try expectEqual(found?.count, names.count, "their number")
            },
            ContractCase("store: a path without a slash is below the own domain's home") { subject in
                let store = subject.backend.store
                let own = subject.backend.domains.own
                try await store.write("data/xenback-contract", "here")
                try expectEqual(
                    try await store.read("/local/domain/\(own)/data/xenback-contract"),
                    "here",
                    "the absolute path's value"
                )
                try await store.remove("data/xenback-contract")
            },
            ContractCase("store: paths that cannot be are refused") { subject in
                for path in ["", "\(subject.scratch)/a\0b", "\(subject.scratch)//a", "\(subject.scratch)/a/"] {
                    try await expectFailure("writing \(path.debugDescription)") { () async throws(HypervisorFailure) in
                        try await subject.backend.store.write(path, "1")
                    }
                }
                let long = "\(subject.scratch)/" + String(repeating: "x", count: 5000)
                try await expectFailure("writing a path of 5000 bytes") { () async throws(HypervisorFailure) in
                    try await subject.backend.store.write(long, "1")
                }
                let found = try await subject.backend.store.read("\(subject.scratch)/a")
                try expectEqual(found, nil, "the node before the zero byte")
            },
            ContractCase("store: permissions are kept as they were set") { subject in
                let node = "\(subject.scratch)/a"
                let front = subject.frontend.domains.own
                let own = subject.backend.domains.own
                try await subject.backend.store.write(node, "1")
                for access in [XenStorePermission.Access.none, .read, .write, .readWrite] {
                    let wanted = [XenStorePermission(own, .none), XenStorePermission(front, access)]
                    let found = try await subject.backend.store.perform { (store) throws(HypervisorFailure) in
                        try store.setPermissions(node, wanted)
                        return try store.permissions(node)
                    }
                    try expectEqual(found, wanted, "the permissions")
                }
            },
            ContractCase("store: what a domain may not read it does not see, nor may it write there") { subject in
                // Domain 0 may do everything, so on a host with one domain there is nothing to try.
                guard subject.frontend.domains.own != .initial else { return }
                let node = "\(subject.scratch)/a"
                let front = subject.frontend.domains.own
                let own = subject.backend.domains.own
                try await subject.backend.store.perform { (store) throws(HypervisorFailure) in
                    try store.write(node, "1")
                    try store.setPermissions(node, [XenStorePermission(own, .none)])
                }
                try expectEqual(try await subject.frontend.store.read(node), nil, "the value")
                let listing = try await expectFailure("listing it") { () async throws(HypervisorFailure) in
                    try await subject.frontend.store.directory(node)
                }
                try expectEqual(listing.errno, .permissionDenied, "the error")
                let failure = try await expectFailure("writing it") { () async throws(HypervisorFailure) in
                    try await subject.frontend.store.write(node, "2")
                }
                try expectEqual(failure.errno, .permissionDenied, "the error")
                try await subject.backend.store.perform { (store) throws(HypervisorFailure) in
                    try store.setPermissions(node, [XenStorePermission(own, .none), XenStorePermission(front, .read)])
                }
                try expectEqual(try await subject.frontend.store.read(node), "1", "the value after it was allowed")
            },
        ] + transactionCases

    private static let transactionCases: [ContractCase] = [
        ContractCase("store: a transaction shows nothing until it is done, and then all") { subject in
            let (a, b) = ("\(subject.scratch)/a", "\(subject.scratch)/b")
            let watcher = subject.neighbour.store
            let between = Between()
            async let seen = between.seen { try await watcher.read(a) }
            let inside = try await subject.backend.store.transaction { (store) throws(HypervisorFailure) in
                try store.write(a, "1")
                try store.write(b, "2")
                between.pause()
                return try store.read(a)
            }
            try expectEqual(inside, "1", "what the transaction itself reads")
            try expectEqual(try await seen, nil, "what others read before its end")
            try expectEqual(try await watcher.read(a), "1", "what others read after its end")
            try expectEqual(try await watcher.read(b), "2", "the second node")
        },
        ContractCase("store: a transaction that fails leaves nothing") { subject in
            let refusal = HypervisorFailure("have second thoughts", .invalidArgument)
            let failure = try await expectFailure("a transaction that throws") { () async throws(HypervisorFailure) in
                try await subject.backend.store.transaction { (store) throws(HypervisorFailure) in
                    try store.write("\(subject.scratch)/a", "1")
                    throw refusal
                }
            }
            try expectEqual(failure.errno, refusal.errno, "the error")
            try expectEqual(try await subject.backend.store.read("\(subject.scratch)/a"), nil, "the value")
        },
        ContractCase("store: a transaction that others disturb runs again") { subject in
            let node = "\(subject.scratch)/a"
            try await subject.backend.store.write(node, "1")
            let disturber = subject.neighbour.store
            let between = Between()
            async let disturbed: String? = between.seen {
                try await disturber.write(node, "10")
                return "10"
            }
            let result = try await subject.backend.store.transaction { (store) throws(HypervisorFailure) in
                let number = Int(try store.read(node) ?? "") ?? 0
                between.pause()
                try store.write(node, String(number + 1))
                return number + 1
            }
            _ = try await disturbed
            try expectEqual(result, 11, "the result")
            try expectEqual(try await disturber.read(node), "11", "the value")
        },
        ContractCase("store: counting in transactions from two connections loses nothing") { subject in
            let node = "\(subject.scratch)/count"
            try await subject.backend.store.write(node, "0")
            try await withThrowingTaskGroup(of: Void.self) { group in
                for store in [subject.backend.store, subject.neighbour.store] {
                    group.addTask {
                        for _ in 0..<25 {
                            try await store.transaction { (store) throws(HypervisorFailure) in
                                let number = Int(try store.read(node) ?? "") ?? 0
                                try store.write(node, String(number + 1))
                            }
                        }
                    }
                }
                try await group.waitForAll()
            }
            try expectEqual(try await subject.backend.store.read(node), "50", "the count")
        },
    ]
}

/// Lets a task do something while another store's thread is in the middle of a transaction.
private final class Between: Sendable {
    private struct State {
        var isInside = false
        var isDone = false
    }
    private let state = Mutex(State())

    /// In the transaction: waits, once, until the task is done, but not for ever: an implementation may hold it up.
    func pause() {
        state.withLock { $0.isInside = true }
        for _ in 0..<3000 where !state.withLock({ $0.isDone }) { usleep(1000) }
    }

    /// In the task: waits until the transaction pauses.
    func seen<R: Sendable>(_ body: @Sendable () async throws -> R) async throws -> R {
        _ = try await eventually { state.withLock { $0.isInside } }
        defer { state.withLock { $0.isDone = true } }
        return try await body()
    }
}
