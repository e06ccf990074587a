// A few threads for blocking system calls that io_uring does not support.

internal import CLinux
internal import Glibc
internal import Synchronization

/// Up to 64 threads, started on demand; idle ones are never woken. Storage that hangs keeps the threads that it has
/// caught, and a worker's other disks must not wait behind them.
@safe
final class BlockingThreads: @unchecked Sendable {
    static let shared = BlockingThreads()
    private static let limit = 64

    // SAFETY: initialised once, never destroyed (the only instance is `shared`); the rest is guarded by `mutex`.
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    private var queue: [@Sendable () -> Void] = []
    private var threads = 0
    private var idle = 0

    private init() {
        unsafe pthread_mutex_init(mutex, nil)
        unsafe pthread_cond_init(condition, nil)
    }

    /// Runs `work` on one of the threads, in its turn.
    func run(_ work: @escaping @Sendable () -> Void) {
        unsafe pthread_mutex_lock(mutex)
        defer { unsafe pthread_mutex_unlock(mutex) }
        queue.append(work)
        if idle >= queue.count || threads == BlockingThreads.limit {
            unsafe pthread_cond_signal(condition)
            return
        }
        var handle = pthread_t()
        let status = unsafe pthread_create(
            &handle,
            nil,
            { _ in
                unsafe linux_begin_thread("blocking")
                BlockingThreads.shared.serve()
                return nil
            },
            nil
        )
        precondition(status == 0 || threads > 0, "pthread_create: errno \(status)")
        if status == 0 {
            pthread_detach(handle)
            threads += 1
        }
    }

    private func serve() {
        unsafe pthread_mutex_lock(mutex)
        while true {
            while queue.isEmpty {
                idle += 1
                unsafe pthread_cond_wait(condition, mutex)
                idle -= 1
            }
            let work = queue.removeFirst()
            unsafe pthread_mutex_unlock(mutex)
            work()
            unsafe pthread_mutex_lock(mutex)
        }
    }
}
