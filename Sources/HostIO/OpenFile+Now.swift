// Transfers on the calling thread, for files in memory: there the system call is the copy.

internal import CLinux
internal import CURing
internal import Glibc
public import SharedRing

/// Linux up to 6.5 gives every buffered io_uring transfer on tmpfs to a helper thread (its files have no FMODE_NOWAIT),
/// which costs two thread switches for a copy of a page.
///
/// Results are those of completions: the number of bytes moved, or a negated `errno`.
extension OpenFile {
    /// Reads into runs of private memory; fewer bytes at the end of the file.
    public func readNow(at offset: UInt64, into pages: PrivatePages, runs: borrowing IORuns) -> Int32 {
        unsafe withVectors(pages, runs) { unsafe preadv(descriptor, $0, $1, off_t(clamping: offset)) }
    }

    /// Writes runs of private memory.
    public func writeNow(at offset: UInt64, from pages: PrivatePages, runs: borrowing IORuns) -> Int32 {
        unsafe withVectors(pages, runs) { unsafe pwritev(descriptor, $0, $1, off_t(clamping: offset)) }
    }

    /// Makes all writes that have ended durable (fdatasync).
    public func synchronizeNow() -> Int32 { fdatasync(descriptor) == 0 ? 0 : -errno }

    @unsafe
    private func withVectors(
        _ pages: PrivatePages,
        _ runs: borrowing IORuns,
        _ move: (UnsafePointer<iovec>, CInt) -> Int
    ) -> Int32 {
        let count = runs.count
        precondition(count > 0, "a transfer moves at least one byte")
        // SAFETY: the vectors live on this frame and are initialised below; the memory is that of `pages`, checked by
        // `unsafeAddress`, and both outlive the system call.
        return unsafe withUnsafeTemporaryAllocation(of: iovec.self, capacity: count) { vectors in
            for position in 0..<count {
                let run = runs[position]
                let memory = unsafe pages.unsafeAddress(at: run.offset, count: run.byteCount)
                unsafe vectors.initializeElement(
                    at: position,
                    to: iovec(iov_base: memory, iov_len: run.byteCount)
                )
            }
            guard let first = vectors.baseAddress else { return -EINVAL }
            let moved = unsafe move(first, CInt(truncatingIfNeeded: count))
            return moved < 0 ? -errno : Int32(clamping: moved)
        }
    }
}
