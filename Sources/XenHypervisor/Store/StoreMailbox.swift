// How other threads reach the store's thread: jobs, and an eventfd that wakes it.

internal import CLinux
internal import Glibc
internal import Synchronization
internal import SystemPackage

/// The jobs of one store, and the only place where its thread sleeps.
final class StoreMailbox: Sendable {
    typealias Job = @Sendable (StoreCore) -> Void

    private struct State {
        var jobs: [Job] = []
        var isStopping = false
    }

    private let state = Mutex(State())
    private let wake: CInt

    init() throws(Errno) {
        wake = eventfd(0, CInt(EFD_CLOEXEC) | CInt(EFD_NONBLOCK))
        guard wake >= 0 else { throw Errno(rawValue: errno) }
    }

    deinit { close(wake) }

    /// Any thread: has the store's thread run `job`, after all that were sent before.
    func send(_ job: @escaping Job) {
        state.withLock { $0.jobs.append(job) }
        eventfd_write(wake, 1)
    }

    /// Any thread: ends all waits from now on; the thread ends when the jobs are done.
    func stop() {
        state.withLock { $0.isStopping = true }
        eventfd_write(wake, 1)
    }

    var isStopping: Bool { state.withLock { $0.isStopping } }

    /// Takes all jobs; nil if there are none and none will come.
    func takeJobs() -> [Job]? {
        state.withLock { state in
            if state.jobs.isEmpty, state.isStopping { return nil }
            defer { state.jobs = [] }
            return state.jobs
        }
    }

    /// Sleeps until `descriptor` is ready, a job comes, or the time is over; the caller checks which.
    /// - Returns: false if the store is stopping.
    func wait(for descriptor: CInt = -1, events: CInt = POLLIN, until deadline: ContinuousClock.Instant?) -> Bool {
        if isStopping { return false }
        var set = [
            pollfd(fd: descriptor, events: Int16(events), revents: 0),
            pollfd(fd: wake, events: Int16(POLLIN), revents: 0),
        ]
        _ = unsafe poll(&set, 2, StoreMailbox.milliseconds(until: deadline))
        if set[1].revents != 0 {
            var count: eventfd_t = 0
            unsafe eventfd_read(wake, &count)
        }
        return !isStopping
    }

    /// Lets time pass, jobs or not.
    /// - Returns: false if the store is stopping.
    func pause(until deadline: ContinuousClock.Instant) -> Bool {
        while ContinuousClock.now < deadline {
            guard wait(until: deadline) else { return false }
        }
        return !isStopping
    }

    private static func milliseconds(until deadline: ContinuousClock.Instant?) -> CInt {
        guard let deadline else { return -1 }
        let rest = ContinuousClock.now.duration(to: deadline)
        guard rest > .zero else { return 0 }
        // Rounded up, so that a loop of waits ends in time instead of spinning through the last millisecond.
        return rest < .seconds(86_400) ? CInt(rest / .milliseconds(1)) + 1 : 86_400_000
    }
}
