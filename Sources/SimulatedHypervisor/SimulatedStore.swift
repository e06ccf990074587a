// The caller's end of XenStore: one thread that runs the closures and receives the watches.

internal import Hypervisor
internal import Synchronization
internal import SystemPackage
internal import XenWire

final class SimulatedStore: XenStore {
    private let thread: StoreThread

    init(link: MachineLink) throws(HypervisorFailure) {
        thread = try StoreThread(link: link)
    }

    deinit { thread.stop() }

    func disconnect() { thread.link.shutDown() }

    func perform<R: Sendable>(
        _ body: @escaping @Sendable (any XenStoreOperations) throws(HypervisorFailure) -> R
    ) async throws(HypervisorFailure) -> R {
        try await thread.run { (link) throws(HypervisorFailure) in try body(StoreCalls(link: link, transaction: 0)) }
    }

    func transaction<R: Sendable>(
        _ body: @escaping @Sendable (any XenStoreOperations) throws(HypervisorFailure) -> R
    ) async throws(HypervisorFailure) -> R {
        try await thread.run { (link) throws(HypervisorFailure) in
            var attempts = 0
            while true {
                attempts += 1
                let number = try link.call(.storeTransactionStart, "start transaction") {
                    (answer, _) throws(Errno) in try answer.integer(UInt32.self)
                }
                let result: R
                do throws(HypervisorFailure) {
                    result = try body(StoreCalls(link: link, transaction: number))
                } catch {
                    try? Self.end(number, commit: false, link)
                    throw error
                }
                do throws(HypervisorFailure) {
                    try Self.end(number, commit: true, link)
                    return result
                } catch {
                    guard error.errno == .resourceTemporarilyUnavailable, attempts < 100 else { throw error }
                }
            }
        }
    }

    private static func end(_ number: UInt32, commit: Bool, _ link: MachineLink) throws(HypervisorFailure) {
        try link.call(.storeTransactionEnd, "end transaction") { message in
            message.put(number)
            message.put(UInt8(commit ? 1 : 0))
        }
    }

    func watch(_ path: String, raising signal: WatchSignal) async throws(HypervisorFailure) -> any Watch {
        let thread = thread
        return try await thread.run { (link) throws(HypervisorFailure) in
            let token = thread.addSignal(signal)
            do throws(HypervisorFailure) {
                try link.call(.storeWatch, "watch \(path)") { message in
                    message.put(token)
                    message.put(path)
                }
            } catch {
                thread.removeSignal(token)
                throw error
            }
            return SimulatedWatch(thread: thread, token: token)
        }
    }
}

final class SimulatedWatch: Watch {
    private let thread: StoreThread
    private let token: UInt64

    init(thread: StoreThread, token: UInt64) {
        self.thread = thread
        self.token = token
    }

    func cancel() async {
        guard thread.removeSignal(token) else { return }
        let token = token
        try? await thread.run { (link) throws(HypervisorFailure) in
            try link.call(.storeUnwatch, "unwatch") { $0.put(token) }
        }
    }
}

/// The thread on which everything of XenStore happens.
final class StoreThread: Sendable {
    private struct Work: Sendable {
        var jobs: [@Sendable (MachineLink) -> Void] = []
        var stopped = false
    }

    let link: MachineLink
    private let work = Mutex(Work())
    private let signals = Mutex<(last: UInt64, byToken: [UInt64: WatchSignal])>((0, [:]))
    private let wake: Descriptor

    init(link: MachineLink) throws(HypervisorFailure) {
        self.link = link
        do throws(Errno) {
            wake = try .event()
            try startThread { self.loop() }
        } catch {
            throw HypervisorFailure("start the XenStore thread", error)
        }
    }

    /// Lets the thread end when all its work is done.
    func stop() {
        work.withLock { $0.stopped = true }
        wake.signal()
    }

    /// Runs `body` on the thread. After `stop` it fails with `ESHUTDOWN`.
    func run<R: Sendable>(
        _ body: @escaping @Sendable (MachineLink) throws(HypervisorFailure) -> R
    ) async throws(HypervisorFailure) -> R {
        let result: Result<R, HypervisorFailure> = await withCheckedContinuation { continuation in
            let accepted = work.withLock { work in
                guard !work.stopped else { return false }
                work.jobs.append { link in
                    do throws(HypervisorFailure) {
                        continuation.resume(returning: .success(try body(link)))
                    } catch {
                        continuation.resume(returning: .failure(error))
                    }
                }
                return true
            }
            if accepted {
                wake.signal()
            } else {
                continuation.resume(returning: .failure(HypervisorFailure("use XenStore", .brokenPipe)))
            }
        }
        return try result.get()
    }

    func addSignal(_ signal: WatchSignal) -> UInt64 {
        signals.withLock { signals in
            signals.last += 1
            signals.byToken[signals.last] = signal
            return signals.last
        }
    }

    @discardableResult
    func removeSignal(_ token: UInt64) -> Bool { signals.withLock { $0.byToken.removeValue(forKey: token) != nil } }

    private func loop() {
        while true {
            let (jobs, stopped) = work.withLock { work in
                defer { work.jobs = [] }
                return (work.jobs, work.stopped)
            }
            for job in jobs { job(link) }
            raiseFired()
            if stopped && jobs.isEmpty { break }
            if jobs.isEmpty { Descriptor.waitReadable([wake, link.watchEvent]) }
            wake.drain()
        }
        link.shutDown()
    }

    private func raiseFired() {
        guard link.watchEvent.isReadable else { return }
        link.watchEvent.drain()
        let tokens = try? link.call(.storeTakeEvents, "take watch events") { (answer, _) throws(Errno) in
            var tokens: [UInt64] = []
            for _ in 0..<(try answer.integer(UInt32.self)) { tokens.append(try answer.integer()) }
            return tokens
        }
        for token in tokens ?? [] { signals.withLock { $0.byToken[token] }?.raise() }
    }
}

/// The synchronous operations, in a transaction or not.
struct StoreCalls: XenStoreOperations {
    let link: MachineLink
    let transaction: UInt32

    private func call<R>(
        _ call: SimulatedCall,
        _ operation: String,
        _ path: String,
        _ arguments: (inout MessageWriter) -> Void = { _ in },
        read: (inout MessageReader) throws(Errno) -> R
    ) throws(HypervisorFailure) -> R {
        try link.call(call, "\(operation) \(path)") { message in
            message.put(transaction)
            message.put(path)
            arguments(&message)
        } read: { (answer, _) throws(Errno) in
            try read(&answer)
        }
    }

    /// Makes the errors that mean "not there for us" nil.
    private func present<R>(
        _ absences: [Errno],
        _ body: () throws(HypervisorFailure) -> R
    ) throws(HypervisorFailure) -> R? {
        do throws(HypervisorFailure) { return try body() } catch {
            if absences.contains(error.errno) { return nil }
            throw error
        }
    }

    func read(_ path: String) throws(HypervisorFailure) -> String? {
        let bytes = try present([.noSuchFileOrDirectory, .permissionDenied]) { () throws(HypervisorFailure) in
            try call(.storeRead, "read", path) { (answer) throws(Errno) in try answer.blob() }
        }
        return bytes.flatMap { String(validating: $0, as: UTF8.self) }
    }

    func directory(_ path: String) throws(HypervisorFailure) -> [String]? {
        try present([.noSuchFileOrDirectory]) { () throws(HypervisorFailure) in
            try call(.storeDirectory, "list", path) { (answer) throws(Errno) in
                var names: [String] = []
                for _ in 0..<(try answer.integer(UInt32.self)) { names.append(try answer.text()) }
                return names
            }
        }
    }

    func write(_ path: String, _ value: String) throws(HypervisorFailure) {
        try call(.storeWrite, "write", path) {
            $0.put(value)
        } read: { (_) throws(Errno) in
        }
    }

    func remove(_ path: String) throws(HypervisorFailure) {
        _ = try present([.noSuchFileOrDirectory]) { () throws(HypervisorFailure) in
            try call(.storeRemove, "remove", path) { (_) throws(Errno) in }
        }
    }

    func permissions(_ path: String) throws(HypervisorFailure) -> [XenStorePermission]? {
        try present([.noSuchFileOrDirectory]) { () throws(HypervisorFailure) in
            try call(.storePermissions, "permissions of", path) { (answer) throws(Errno) in
                try answer.permissions()
            }
        }
    }

    func setPermissions(
        _ path: String,
        _ permissions: [XenStorePermission]
    ) throws(HypervisorFailure) {
        try call(.storeSetPermissions, "set permissions of", path) {
            $0.put(permissions)
        } read: { (_) throws(Errno) in
        }
    }
}
