// A process that is watched through its pidfd: one we started, or a running one that we adopt.

internal import CLinux
public import SystemPackage

#if canImport(Glibc)
    internal import Glibc
#endif

/// How a process ended.
public enum ProcessEnd: Hashable, Sendable, CustomStringConvertible {
    case exited(CInt)
    case signalled(CInt)
    /// It was not our child, so its status is unknown.
    case unknown

    public var description: String {
        switch self {
        case .exited(let status): "exited with status \(status)"
        case .signalled(let signal): "killed by signal \(signal)"
        case .unknown: "ended"
        }
    }
}

/// A process, held by a pidfd so that its number cannot come to mean another one.
@safe
public final class ChildProcess: Sendable {
    public let identifier: CInt
    /// Readable when the process has ended (pidfd_open(2)); for a loop's poll set. Valid as long as this object.
    public let descriptor: CInt

    private init(identifier: CInt, descriptor: CInt) {
        self.identifier = identifier
        self.descriptor = descriptor
    }

    deinit { _ = close(descriptor) }

    /// Starts a program with posix_spawn(3): no fork of a process with threads, no descriptor above 2 inherited, a
    /// process group of its own (a terminal's ^C is the parent's business), default signal dispositions, output and
    /// errors to ours.
    /// - Parameters:
    ///   - arguments: the whole argument vector; the first is the program's path.
    ///   - input: what the program reads from; without it `/dev/null`.
    /// - Throws: the errors of execve(2), such as `ENOENT`, and of posix_spawn, such as `EAGAIN`.
    public convenience init(spawning arguments: [String], input: OpenFile? = nil) throws(Errno) {
        precondition(!arguments.isEmpty)
        var vector: [UnsafeMutablePointer<CChar>?] = unsafe arguments.map { unsafe strdup($0) }
        unsafe vector.append(nil)
        // SAFETY: the words live until the call has returned; the child has its own copy then.
        defer { for index in unsafe vector.indices { unsafe free(vector[index]) } }
        var identifier: pid_t = 0
        let status = unsafe spawn_service(&identifier, vector, input?.descriptor ?? -1)
        guard status == 0 else { throw Errno(rawValue: status) }
        // The child is ours and not waited for yet: its number cannot be reused before pidfd_open.
        let descriptor = pidfd_open(identifier, 0)
        guard descriptor >= 0 else {
            let failure = Errno(rawValue: errno)
            _ = kill(identifier, SIGKILL)
            _ = waitpid(identifier, nil, 0)
            throw failure
        }
        self.init(identifier: identifier, descriptor: descriptor)
    }

    /// Opens a pidfd for a running process. The caller must check, *after* this call, that the number still meant the
    /// process it wanted (the lock file that names it is still held).
    /// - Throws: `ESRCH` if there is no such process.
    public convenience init(adopting identifier: CInt) throws(Errno) {
        let descriptor = pidfd_open(identifier, 0)
        guard descriptor >= 0 else { throw Errno(rawValue: errno) }
        self.init(identifier: identifier, descriptor: descriptor)
    }

    /// Sends a signal; no error if the process has ended.
    public func signal(_ number: CInt) {
        _ = pidfd_send_signal(descriptor, number, nil, 0)
    }

    /// Takes the end of the process, once `descriptor` is readable. Never blocks.
    /// - Returns: nil if it still runs; `.unknown` if it was adopted, so not ours to wait for.
    public func takeEnd() -> ProcessEnd? {
        var report = unsafe siginfo_t()
        // SAFETY: the kernel fills `report`; the fields read are those of a SIGCHLD report (sigaction(2)).
        let status = unsafe waitid(P_PIDFD, id_t(descriptor), &report, WEXITED | WNOHANG)
        guard status == 0 else { return errno == ECHILD ? adoptedEnd() : nil }
        guard unsafe report.si_signo == SIGCHLD else { return nil }
        let code = unsafe report._sifields._sigchld.si_status
        return unsafe report.si_code == Int32(CLD_EXITED) ? .exited(code) : .signalled(code)
    }

    /// A process that is not our child: has it ended?
    private func adoptedEnd() -> ProcessEnd? {
        var poll = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        return unsafe Glibc.poll(&poll, 1, 0) == 1 ? .unknown : nil
    }
}
