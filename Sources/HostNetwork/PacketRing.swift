// An io_uring that processes the packets of one batch at once, and never waits for any.

internal import CURing
internal import Glibc

/// One submission queue for reads and writes that complete while they are submitted. Used by one thread.
///
/// A queue's descriptor is non-blocking, so that nothing ever goes to a kernel thread. Where the device also knows
/// `RWF_NOWAIT` (TAPs from Linux 6.4 on), what cannot be done now fails at once with `EAGAIN`. Where it does not, the
/// kernel sets up a poll for it instead (io_uring/rw.c, `io_rw_init_file`), which is cancelled before `run` returns. A
/// packet that arrives at that very moment wakes the poll, the read finds nothing and is armed again behind the
/// cancellation's back. So one cancellation is not enough: there is another until no read is left.
@safe
struct PacketRing: ~Copyable {
    // SAFETY: one io_uring set up in init, at a stable address because liburing keeps pointers into it, torn down and
    // freed in deinit.
    private let ring: UnsafeMutablePointer<io_uring>
    private var isEnabled = false
    private var usesNowait: Bool
    private static let cancelMark = UInt64.max

    /// Nil where io_uring is missing, forbidden or older than Linux 6.1: plain calls are used then.
    init?(entries: UInt32, usesNowait: Bool = true) {
        self.usesNowait = usesNowait
        unsafe ring = .allocate(capacity: 1)
        unsafe ring.initialize(to: io_uring())
        let flags =
            IORING_SETUP_CLAMP | IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN
        if unsafe io_uring_queue_init(entries, ring, flags) != 0 {
            unsafe ring.deallocate()
            return nil
        }
    }

    deinit {
        unsafe io_uring_queue_exit(ring)
        unsafe ring.deallocate()
    }

    /// Carries out `count` packets of a batch from number `first` on, and fills in their results.
    /// - Returns: false if they must go by plain calls; then none was carried out.
    @unsafe
    mutating func run(_ transfer: PacketTransfer, first: Int, count: Int) -> Bool {
        if !isEnabled {
            guard unsafe uring_enable(ring) == 0 else { return false }
            isEnabled = true
        }
        guard unsafe attempt(transfer, first, count) else { return false }
        // If one is refused, all are, before they are looked at.
        if usesNowait, unsafe transfer.results[first] == -EOPNOTSUPP {
            usesNowait = false
            return unsafe attempt(transfer, first, count)
        }
        return true
    }

    @unsafe
    private func attempt(_ transfer: PacketTransfer, _ first: Int, _ count: Int) -> Bool {
        if unsafe count > Int(io_uring_sq_space_left(ring)) { return false }
        for index in first..<first &+ count {
            let runs = unsafe transfer.runs(index)
            guard let entry = unsafe io_uring_get_sqe(ring) else { return false }
            let descriptor = unsafe transfer.descriptor
            if unsafe transfer.isWrite {
                unsafe io_uring_prep_writev(entry, descriptor, runs.baseAddress, UInt32(runs.count), 0)
            } else {
                unsafe io_uring_prep_readv(entry, descriptor, runs.baseAddress, UInt32(runs.count), 0)
            }
            if usesNowait { unsafe entry.pointee.rw_flags = UInt32(RWF_NOWAIT) }
            unsafe io_uring_sqe_set_data64(entry, UInt64(index))
        }
        submit(waitingFor: 0)
        var pending = unsafe count &- reap(transfer.results).packets
        while pending > 0 {
            cancel()
            var isCancelled = false
            while !isCancelled {
                submit(waitingFor: 1)
                let reaped = unsafe reap(transfer.results)
                pending = pending &- reaped.packets
                isCancelled = reaped.sawCancel
            }
        }
        return true
    }

    /// Ends the polls of everything that could not be done now.
    private func cancel() {
        // SAFETY: all entries were submitted just before, so that there is one.
        guard let entry = unsafe io_uring_get_sqe(ring) else { preconditionFailure("submission queue is full") }
        unsafe io_uring_prep_cancel64(entry, 0, CInt(IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL))
        unsafe io_uring_sqe_set_data64(entry, PacketRing.cancelMark)
    }

    /// Submits everything; retried while the kernel is short of memory for it.
    private func submit(waitingFor minimum: UInt32) {
        repeat {
            let status = unsafe minimum > 0 ? io_uring_submit_and_wait(ring, minimum) : io_uring_submit(ring)
            precondition(
                status >= 0 || status == -EINTR || status == -EAGAIN || status == -EBUSY,
                "io_uring_enter: errno \(-status)"
            )
        } while unsafe io_uring_sq_ready(ring) > 0
    }

    /// Takes the completions that are there.
    /// - Returns: how many packets were among them, and whether a cancellation was.
    @unsafe
    private func reap(_ results: UnsafeMutablePointer<Int32>) -> (packets: Int, sawCancel: Bool) {
        var taken = (packets: 0, sawCancel: false)
        var entry: UnsafeMutablePointer<io_uring_cqe>?
        while unsafe io_uring_peek_cqe(ring, &entry) == 0, let completion = unsafe entry {
            let mark = unsafe completion.pointee.user_data
            let result = unsafe completion.pointee.res
            if mark == PacketRing.cancelMark {
                taken.sawCancel = true
            } else {
                unsafe results[Int(mark)] = result == -ECANCELED || result == -EINTR ? -EAGAIN : result
                taken.packets &+= 1
            }
            unsafe io_uring_cq_advance(ring, 1)
        }
        return taken
    }
}
