// The public face of XenStore: async calls that become jobs of the store's thread.

internal import CLinux
internal import Glibc
internal import Hypervisor
internal import Synchronization
internal import SystemPackage
internal import XenWire

/// A connection to xenstored that reconnects by itself.
final class XenStoreClient: XenStore, Sendable {
    private let mailbox: StoreMailbox
    private let thread: pthread_t
    /// The domain we run in, as xenstored sees the connection.
    let own: DomainID

    /// Connects, or fails at once with the reason.
    /// - Parameter patience: how long a call may wait for a xenstored that is gone or silent.
    init(
        paths: [String] = XenStoreClient.defaultPaths,
        patience: Duration = .seconds(60)
    ) throws(HypervisorFailure) {
        let core: StoreCore
        do throws(Errno) {
            mailbox = try StoreMailbox()
            core = StoreCore(paths: paths, patience: patience, mailbox: mailbox)
            try core.connectOnce()
        } catch {
            throw .opening(paths.joined(separator: ", "), or: "start xenstored", error)
        }
        // Relative: /local/domain/<ours>/domid, which the toolstack writes for every domain.
        guard let text = try StoreOperations(core).read("domid"), let domain = DomainID(text: text) else {
            throw HypervisorFailure("read our own domid from XenStore (has xen-init-dom0 run?)", .noSuchFileOrDirectory)
        }
        own = domain
        do throws(Errno) {
            thread = try XenStoreClient.start(core)
        } catch {
            throw HypervisorFailure("start the XenStore thread", error)
        }
    }

    deinit {
        mailbox.stop()
        // The last reference may be released in a job, on the thread itself.
        if pthread_equal(thread, pthread_self()) != 0 {
            pthread_detach(thread)
        } else {
            pthread_join(thread, nil)
        }
    }

    func perform<R: Sendable>(
        _ body: @escaping @Sendable (any XenStoreOperations) throws(HypervisorFailure) -> R
    ) async throws(HypervisorFailure) -> R {
        try await onThread { (core) throws(HypervisorFailure) in try body(StoreOperations(core)) }
    }

    func transaction<R: Sendable>(
        _ body: @escaping @Sendable (any XenStoreOperations) throws(HypervisorFailure) -> R
    ) async throws(HypervisorFailure) -> R {
        try await onThread { (core) throws(HypervisorFailure) in try core.transaction(body) }
    }

    func watch(_ path: String, raising signal: WatchSignal) async throws(HypervisorFailure) -> any Watch {
        guard !path.isEmpty, !path.utf8.contains(0) else {
            throw HypervisorFailure("watch \(path.debugDescription)", .invalidArgument)
        }
        let token = try await onThread { (core) throws(HypervisorFailure) in
            try core.watch(path, raising: signal)
        }
        return StoreWatch(store: self, token: token)
    }

    fileprivate func unwatch(_ token: String) async {
        try? await onThread { (core) throws(HypervisorFailure) in core.unwatch(token) }
    }

    /// Runs `body` on the store's thread and waits for it without holding the caller's.
    func onThread<R: Sendable>(
        _ body: @escaping @Sendable (StoreCore) throws(HypervisorFailure) -> R
    ) async throws(HypervisorFailure) -> R {
        let result: Result<R, HypervisorFailure> = await withCheckedContinuation { continuation in
            mailbox.send { core in
                do throws(HypervisorFailure) {
                    continuation.resume(returning: .success(try body(core)))
                } catch {
                    continuation.resume(returning: .failure(error))
                }
            }
        }
        return try result.get()
    }

    /// Runs `body` on the store's thread and holds up the caller's meanwhile: not for loops, and never on that thread.
    func wait<R: Sendable>(
        _ body: @escaping @Sendable (StoreCore) throws(HypervisorFailure) -> R
    ) throws(HypervisorFailure) -> R {
        precondition(pthread_equal(thread, pthread_self()) == 0, "the store's thread cannot wait for itself")
        let outcome: StoreOutcome<R>
        do throws(Errno) { outcome = try StoreOutcome() } catch { throw HypervisorFailure("wait for XenStore", error) }
        mailbox.send { core in
            do throws(HypervisorFailure) {
                outcome.set(.success(try body(core)))
            } catch {
                outcome.set(.failure(error))
            }
        }
        return try outcome.wait().get()
    }

    /// The places libxenstore uses, with its environment variables: xenstored's socket in its own domain, the kernel's
    /// device elsewhere.
    static var defaultPaths: [String] {
        if let path = environment("XENSTORED_PATH") { return [path] }
        return [
            (environment("XENSTORED_RUNDIR") ?? "/var/run/xenstored") + "/socket",
            "/dev/xen/xenbus",
            "/proc/xen/xenbus",
        ]
    }

    private static func environment(_ name: String) -> String? {
        // SAFETY: the string is copied before anything else can change the environment: it is read at start only.
        unsafe getenv(name).map { unsafe String(cString: $0) }
    }

    private static func start(_ core: StoreCore) throws(Errno) -> pthread_t {
        var thread = pthread_t()
        let box = StoreThreadBox(core: core)
        // SAFETY: the reference that passRetained takes is given back by the thread's first statement.
        let argument = unsafe Unmanaged.passRetained(box).toOpaque()
        let error = unsafe pthread_create(&thread, nil, storeThread, argument)
        guard error == 0 else {
            unsafe Unmanaged<StoreThreadBox>.fromOpaque(argument).release()
            throw Errno(rawValue: error)
        }
        return thread
    }
}

/// A job's result, on its way to the thread that waits for it.
private final class StoreOutcome<R: Sendable>: Sendable {
    private let result = Mutex<Result<R, HypervisorFailure>?>(nil)
    private let done: CInt

    init() throws(Errno) {
        done = eventfd(0, CInt(EFD_CLOEXEC))
        guard done >= 0 else { throw Errno(rawValue: errno) }
    }

    deinit { close(done) }

    func set(_ outcome: Result<R, HypervisorFailure>) {
        result.withLock { $0 = outcome }
        eventfd_write(done, 1)
    }

    func wait() -> Result<R, HypervisorFailure> {
        while true {
            if let outcome = result.withLock({ $0 }) { return outcome }
            var count: eventfd_t = 0
            // Interrupted by a signal: look, and wait again.
            unsafe eventfd_read(done, &count)
        }
    }
}

/// Hands the core over to its thread.
// SAFETY: made on one thread and used on another, which is created with it: never on two at a time.
private final class StoreThreadBox: @unchecked Sendable {
    let core: StoreCore
    init(core: StoreCore) { self.core = core }
}

private func storeThread(_ argument: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
    guard let argument = unsafe argument else { return nil }
    // SAFETY: `start` passed a retained box.
    let core = unsafe Unmanaged<StoreThreadBox>.fromOpaque(argument).takeRetainedValue().core
    unsafe linux_begin_thread("xenstore")
    core.run()
    return nil
}

/// A watch in force; see `XenStore.watch`.
private final class StoreWatch: Watch {
    private let store: XenStoreClient
    private let token: String

    init(store: XenStoreClient, token: String) {
        self.store = store
        self.token = token
    }

    func cancel() async { await store.unwatch(token) }
}
