// Signals of the whole process, received by one thread that waits for them.

internal import CLinux

#if canImport(Glibc)
    internal import Glibc
#endif

/// The signals a service lives by.
public enum ServiceSignal: Sendable {
    /// SIGTERM or SIGINT: stop.
    case stop
    /// SIGHUP: read the configuration again.
    case reload
}

/// Blocks the service's signals in this thread and all it starts, and hands them out one by one.
public enum ProcessSignals {
    /// To be called first thing in `main`, before any other thread exists. Writing to a closed socket becomes EPIPE.
    public static func block() {
        signal(SIGPIPE, SIG_IGN)
        var set = serviceSet()
        unsafe pthread_sigmask(SIG_BLOCK, &set, nil)
    }

    /// Waits for the next signal; blocks the calling thread.
    public static func next() -> ServiceSignal {
        var set = serviceSet()
        while true {
            var number: CInt = 0
            guard unsafe sigwait(&set, &number) == 0 else { continue }
            return number == SIGHUP ? .reload : .stop
        }
    }

    private static func serviceSet() -> sigset_t {
        var set = sigset_t()
        unsafe sigemptyset(&set)
        for number in [SIGTERM, SIGINT, SIGHUP] { unsafe sigaddset(&set, number) }
        return set
    }
}
