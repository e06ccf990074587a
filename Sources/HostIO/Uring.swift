// liburing behind a noncopyable owner: one submission and one completion queue, used by one thread.

internal import CLinux
internal import CURing
internal import Glibc
internal import SystemPackage

/// An io_uring and the memory that its unsubmitted entries point to. Used on the thread that enabled it, only.
@safe
struct Uring: ~Copyable {
    // SAFETY: one io_uring set up in init, at a stable address because liburing keeps pointers into it, torn down and
    // freed in deinit.
    private let ring: UnsafeMutablePointer<io_uring>
    // SAFETY: `vectorCapacity` entries that submission queue entries refer to until they are submitted. The kernel has
    // copied them when io_uring_enter returns (IORING_FEAT_SUBMIT_STABLE), so all are free again then.
    private let vectors: UnsafeMutablePointer<iovec>
    private let times: UnsafeMutablePointer<__kernel_timespec>
    private let reaped: UnsafeMutablePointer<UnsafeMutablePointer<io_uring_cqe>?>
    private var vectorCount = 0
    private var timeCount = 0
    private static let vectorCapacity = 1024
    private static let timeCapacity = 64
    private static let reapCapacity = 128

    /// The three fields of a completion queue entry.
    struct Entry {
        var userData: UInt64
        var result: Int32
        var hasMore: Bool
    }

    /// Sets up a ring, with the best flags that this kernel knows. It is `enable`d on the thread that will use it.
    /// - Throws: `ENOSYS` or `EPERM` where io_uring is missing or forbidden, `EOPNOTSUPP` below Linux 5.7 (IORING_FEAT_FAST_POLL).
    init(entries: UInt32) throws(Errno) {
        unsafe ring = .allocate(capacity: 1)
        unsafe vectors = .allocate(capacity: Uring.vectorCapacity)
        unsafe times = .allocate(capacity: Uring.timeCapacity)
        unsafe reaped = .allocate(capacity: Uring.reapCapacity)
        unsafe reaped.initialize(repeating: nil, count: Uring.reapCapacity)
        let size = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_R_DISABLED
        // Linux 6.1 supports all; 5.19 cooperative task work; older kernels none of them.
        let attempts: [UInt32] = [
            size | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
            size | IORING_SETUP_COOP_TASKRUN,
            size,
        ]
        var status: CInt = -EINVAL
        for flags in attempts where status == -EINVAL {
            unsafe ring.initialize(to: io_uring())
            var parameters = io_uring_params()
            parameters.flags = flags
            parameters.cq_entries = max(1024, entries &* 4)
            status = unsafe io_uring_queue_init_params(entries, ring, &parameters)
            let needed = IORING_FEAT_NODROP | IORING_FEAT_SUBMIT_STABLE | IORING_FEAT_FAST_POLL
            if status == 0, parameters.features & needed != needed {
                unsafe io_uring_queue_exit(ring)
                status = -EOPNOTSUPP
            }
        }
        if status < 0 {
            unsafe Uring.free(ring, vectors, times, reaped)
            throw Errno(rawValue: -status)
        }
    }

    deinit {
        unsafe io_uring_queue_exit(ring)
        unsafe Uring.free(ring, vectors, times, reaped)
    }

    @unsafe
    private static func free(
        _ ring: UnsafeMutablePointer<io_uring>,
        _ vectors: UnsafeMutablePointer<iovec>,
        _ times: UnsafeMutablePointer<__kernel_timespec>,
        _ reaped: UnsafeMutablePointer<UnsafeMutablePointer<io_uring_cqe>?>
    ) {
        unsafe ring.deallocate()
        unsafe vectors.deallocate()
        unsafe times.deallocate()
        unsafe reaped.deallocate()
    }

    /// True if the submission queue has room and the side tables can take a transfer of `vectors` pieces.
    func hasRoom(vectors wanted: Int) -> Bool {
        unsafe io_uring_sq_space_left(ring) > 0 && wanted <= Uring.vectorCapacity &- vectorCount
            && timeCount < Uring.timeCapacity
    }

    /// Submits what was prepared and waits for `minimum` completions.
    /// - Returns: false if the kernel could not take all for now (`EAGAIN`, `EBUSY`) or a signal came first.
    mutating func enter(waitingFor minimum: UInt32) -> Bool {
        let status =
            unsafe minimum > 0
            ? io_uring_submit_and_wait(ring, minimum) : io_uring_submit_and_get_events(ring)
        if unsafe io_uring_sq_ready(ring) == 0 {
            vectorCount = 0
            timeCount = 0
        }
        if status >= 0 { return true }
        precondition(
            status == -EINTR || status == -EAGAIN || status == -EBUSY || status == -ETIME,
            "io_uring_enter: errno \(-status)"
        )
        return false
    }

    /// Peeks at the completions that have arrived, at most one batch of them.
    /// - Returns: how many `completion(_:)` now knows; zero means that the queue is empty.
    func peek() -> Int {
        Int(unsafe io_uring_peek_batch_cqe(ring, reaped, UInt32(Uring.reapCapacity)))
    }

    /// One of the completions that the last `peek` found.
    func completion(_ position: Int) -> Entry {
        precondition(position >= 0 && position < Uring.reapCapacity)
        // SAFETY: liburing filled the entries that `peek` counted; they stay valid until `advance`.
        guard let entry = unsafe reaped[position] else { preconditionFailure("not a completion of the last peek") }
        return unsafe Entry(
            userData: entry.pointee.user_data,
            result: entry.pointee.res,
            hasMore: entry.pointee.flags & IORING_CQE_F_MORE != 0
        )
    }

    /// Gives the first `count` completions back to the kernel.
    func advance(_ count: Int) { unsafe io_uring_cq_advance(ring, UInt32(count)) }

    /// Lets the calling thread, and no other, submit from now on.
    func enable() {
        let status = unsafe uring_enable(ring)
        precondition(status == 0, "IORING_REGISTER_ENABLE_RINGS: errno \(-status)")
    }
}

// Preparing entries. All of these need `hasRoom`, checked by the caller.
extension Uring {
    private func next(_ userData: UInt64, _ prepare: (UnsafeMutablePointer<io_uring_sqe>) -> Void) {
        // SAFETY: `hasRoom` was checked by the caller, and nothing but this type takes entries.
        guard let entry = unsafe io_uring_get_sqe(ring) else { preconditionFailure("submission queue is full") }
        unsafe prepare(entry)
        unsafe io_uring_sqe_set_data64(entry, userData)
    }

    /// Prepares a read of `count` bytes; the memory must live until the completion.
    @unsafe
    func prepareRead(
        _ userData: UInt64,
        _ descriptor: CInt,
        _ memory: UnsafeMutableRawPointer,
        _ count: UInt32,
        at offset: UInt64
    ) {
        unsafe next(userData) { unsafe io_uring_prep_read($0, descriptor, memory, count, offset) }
    }

    /// Prepares a write of `count` bytes; the memory must live until the completion.
    @unsafe
    func prepareWrite(
        _ userData: UInt64,
        _ descriptor: CInt,
        _ memory: UnsafeMutableRawPointer,
        _ count: UInt32,
        at offset: UInt64
    ) {
        unsafe next(userData) { unsafe io_uring_prep_write($0, descriptor, memory, count, offset) }
    }

    /// Adds a piece to the vector of the transfer that is prepared next.
    @unsafe
    mutating func appendVector(_ memory: UnsafeMutableRawPointer, _ count: Int) {
        precondition(vectorCount < Uring.vectorCapacity)
        unsafe vectors[vectorCount] = iovec(iov_base: memory, iov_len: count)
        vectorCount &+= 1
    }

    /// Prepares a transfer of the last `count` pieces appended; their memory must live until the completion.
    func prepareVectored(_ userData: UInt64, _ descriptor: CInt, count: Int, at offset: UInt64, writing: Bool) {
        precondition(count <= vectorCount)
        let first = unsafe vectors.advanced(by: vectorCount &- count)
        unsafe next(userData) {
            if writing {
                unsafe io_uring_prep_writev($0, descriptor, first, UInt32(count), offset)
            } else {
                unsafe io_uring_prep_readv($0, descriptor, first, UInt32(count), offset)
            }
        }
    }

    /// Prepares fdatasync.
    func prepareSynchronize(_ userData: UInt64, _ descriptor: CInt) {
        unsafe next(userData) { unsafe io_uring_prep_fsync($0, descriptor, IORING_FSYNC_DATASYNC) }
    }

    /// Prepares fallocate(2) that gives blocks back.
    func preparePunchHole(_ userData: UInt64, _ descriptor: CInt, offset: UInt64, length: UInt64) {
        // The kernel takes signed numbers and refuses negative ones.
        let limit = UInt64(Int64.max)
        let mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
        unsafe next(userData) {
            unsafe uring_prep_fallocate($0, descriptor, mode, min(offset, limit), min(length, limit))
        }
    }

    /// Prepares a multishot poll for a mask of poll(2) events.
    func preparePoll(_ userData: UInt64, _ descriptor: CInt, _ events: UInt16) {
        unsafe next(userData) { unsafe io_uring_prep_poll_multishot($0, descriptor, UInt32(events)) }
    }

    /// Prepares a relative timeout on CLOCK_MONOTONIC.
    mutating func prepareTimeout(_ userData: UInt64, _ delay: Duration) {
        let (seconds, attoseconds) = max(delay, .zero).components
        let time = unsafe times.advanced(by: timeCount)
        timeCount &+= 1
        unsafe time.pointee.tv_sec = seconds
        unsafe time.pointee.tv_nsec = attoseconds / 1_000_000_000
        unsafe next(userData) { unsafe io_uring_prep_timeout($0, time, 0, 0) }
    }

    /// Prepares the cancellation of the operation with user data `victim`, of whatever kind.
    func prepareCancel(_ userData: UInt64, of victim: UInt64) {
        unsafe next(userData) { unsafe io_uring_prep_cancel64($0, victim, 0) }
    }
}
