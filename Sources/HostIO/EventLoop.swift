// One thread, one io_uring, one executor: descriptors, timers, disk I/O and Swift tasks take turns on it.

internal import CLinux
internal import Glibc
internal import SharedRing
internal import Synchronization
public import SystemPackage

/// A thread that waits in `io_uring_enter` and nowhere else.
///
/// A loop is a `SerialExecutor`, so that an actor can be pinned to it with `unownedExecutor`, and a `TaskExecutor`, so
/// that `Task(executorPreference: loop)` keeps every resumption on its thread. One turn is: deliver completions, each
/// target's in one call; run the jobs that are ready; submit all that was prepared, with the same system call that
/// waits for more. An idle loop is never woken.
///
/// Members that say "on the loop" trap elsewhere. The loop lives, with its thread, until `shutDown`.
@safe
public final class EventLoop: @unchecked Sendable {
    /// The name of the thread.
    public let name: String

    // SAFETY: `core`, `ready`, `running` and `isStopping` belong to the loop's thread: every member that touches them
    // checks `isOnLoop` or is called by one that did. `thread` is written once, under the inbox's lock, before init
    // returns and before the thread's first turn. `coreStorage` is one initialised core, freed in deinit. Its methods
    // make no callbacks and release no target, so that accesses never overlap; the runtime's check of that would cost a
    // tenth of a buffered read.
    private let coreStorage: UnsafeMutablePointer<LoopCore>
    private var ready: ContiguousArray<UnownedJob> = []
    private var running: ContiguousArray<UnownedJob> = []
    private(set) var isStopping = false
    private var thread = pthread_t()

    private let inbox = Mutex(Inbox())
    private let isArmed = Atomic(false)
    private let wakeUps = Atomic<UInt64>(0)
    private let kick: OpenFile
    private let kickPages: PrivatePages

    /// What other threads submit to the loop.
    private struct Inbox {
        var jobs: ContiguousArray<UnownedJob> = []
        var works: ContiguousArray<@Sendable () -> Void> = []
        var isShutDown = false
        var isClosed = false
    }

    /// Starts a loop and its thread.
    /// - Parameter entries: operations submitted with one system call; more can be in flight.
    /// - Throws: `EPERM` or `ENOSYS` where io_uring is forbidden or missing, `EOPNOTSUPP` below Linux 5.7, or what
    ///   eventfd(2) and pthread_create(3) say.
    public init(name: String, entries: UInt32 = 256) throws(Errno) {
        self.name = name
        let descriptor = eventfd(0, CInt(EFD_CLOEXEC))
        if descriptor < 0 { throw Errno(rawValue: errno) }
        kick = OpenFile(adopting: descriptor)
        kickPages = try PrivatePages(byteCount: 8)
        let core = try LoopCore(entries: entries)
        unsafe coreStorage = .allocate(capacity: 1)
        unsafe coreStorage.initialize(to: core)
        let status = inbox.withLock { _ in startThread() }
        if status != 0 { throw Errno(rawValue: status) }
    }

    deinit {
        unsafe coreStorage.deinitialize(count: 1)
        unsafe coreStorage.deallocate()
    }

    var core: LoopCore {
        @inline(__always) _read { yield unsafe coreStorage.pointee }
        @inline(__always) _modify { yield unsafe &coreStorage.pointee }
    }

    /// True on the loop's thread.
    public var isOnLoop: Bool { pthread_equal(pthread_self(), thread) != 0 }

    /// How often the loop has returned from waiting; constant while nothing happens.
    public var wakeUpCount: UInt64 { wakeUps.load(ordering: .relaxed) }

    /// Runs `work` on the loop, after what is already waiting there. Any thread may call it.
    public func perform(_ work: @escaping @Sendable () -> Void) {
        let isOpen = inbox.withLock { inbox in
            if !inbox.isClosed { inbox.works.append(work) }
            return !inbox.isClosed
        }
        if isOpen { wake() }
    }

    /// Ends the loop: polls and timers end with `-ECANCELED`, I/O in flight is waited for, jobs that are ready run, and
    /// then the thread. Any thread may call it; the first caller waits for the end unless it is on the loop.
    ///
    /// End the tasks that live on a loop first: one that awaits something later than this never resumes.
    public func shutDown() {
        let isFirst = inbox.withLock { inbox in
            defer { inbox.isShutDown = true }
            return !inbox.isShutDown
        }
        if !isFirst { return }
        perform { self.beginStopping() }
        if isOnLoop {
            _ = pthread_detach(thread)
        } else {
            _ = pthread_join(thread, nil)
        }
    }
}

// The thread.
extension EventLoop {
    private func startThread() -> CInt {
        var handle = pthread_t()
        let reference = unsafe Unmanaged.passRetained(self).toOpaque()
        let status = unsafe pthread_create(&handle, nil, EventLoop.threadMain, reference)
        if status == 0 {
            thread = handle
        } else {
            unsafe Unmanaged<EventLoop>.fromOpaque(reference).release()
        }
        return status
    }

    private static let threadMain: @convention(c) (UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? = {
        reference in
        // SAFETY: `startThread` passed a retained loop, and this is its one release.
        guard let reference = unsafe reference else { return nil }
        let loop = unsafe Unmanaged<EventLoop>.fromOpaque(reference).takeRetainedValue()
        unsafe linux_begin_thread(loop.name)
        loop.run()
        return nil
    }

    private func run() {
        inbox.withLock { _ in }
        core.enable()
        core.startKick(kick, into: kickPages)
        while true {
            runJobs()
            if isStopping && core.operations.count == 1 && ready.isEmpty && !core.hasBooked && closeInbox() { break }
            let isIdle = ready.isEmpty && !core.hasBooked
            core.turn(waitingFor: isIdle ? 1 : 0)
            if isIdle { wakeUps.add(1, ordering: .relaxed) }
            if core.isKicked { emptyInbox() }
            deliver()
        }
        core.cancel(silently: true) { _ in true }
        while core.operations.count > 0 { core.turn(waitingFor: 1) }
        // Targets usually know their loop, and may use it while they are released.
        _ = core.takeTargets()
    }

    private func deliver() {
        while let (target, index, run) = core.targets.takeRun() {
            let batch = CompletionBatch(run)
            target.completed(batch)
            core.targets.recycle(batch.takeStorage(), index: index)
        }
    }

    private func runJobs() {
        if ready.isEmpty { return }
        swap(&ready, &running)
        let serial = unsafe asUnownedSerialExecutor()
        let preference = unsafe asUnownedTaskExecutor()
        for job in running { unsafe job.runSynchronously(isolatedTo: serial, taskExecutor: preference) }
        running.removeAll(keepingCapacity: true)
    }

    private func emptyInbox() {
        core.isKicked = false
        core.startKick(kick, into: kickPages)
        // From here on additions kick again; earlier ones are seen below.
        _ = isArmed.exchange(false, ordering: .sequentiallyConsistent)
        let works = inbox.withLock { inbox in
            ready.append(contentsOf: inbox.jobs)
            inbox.jobs.removeAll(keepingCapacity: true)
            defer { inbox.works.removeAll() }
            return inbox.works
        }
        for work in works { work() }
    }

    private func wake() {
        if isArmed.exchange(true, ordering: .sequentiallyConsistent) { return }
        _ = eventfd_write(kick.descriptor, 1)
    }

    private func beginStopping() {
        isStopping = true
        core.cancel(silently: false) { $0.kind == .poll || $0.kind == .timer }
    }

    /// Refuses further jobs, unless there are some already.
    private func closeInbox() -> Bool {
        inbox.withLock { inbox in
            inbox.isClosed = inbox.jobs.isEmpty && inbox.works.isEmpty
            return inbox.isClosed
        }
    }
}

extension EventLoop: SerialExecutor, TaskExecutor {
    public func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        if isOnLoop {
            ready.append(job)
            return
        }
        let isOpen = inbox.withLock { inbox in
            if !inbox.isClosed { inbox.jobs.append(job) }
            return !inbox.isClosed
        }
        if isOpen { wake() }
    }

    public func asUnownedSerialExecutor() -> UnownedSerialExecutor { unsafe UnownedSerialExecutor(ordinary: self) }

    public func asUnownedTaskExecutor() -> UnownedTaskExecutor { unsafe UnownedTaskExecutor(ordinary: self) }

    public func checkIsolated() { precondition(isOnLoop, "not on the loop \(name)") }

    public func isIsolatingCurrentContext() -> Bool? { isOnLoop }
}
