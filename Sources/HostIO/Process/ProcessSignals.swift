// Signals of the whole process, received by one thread that waits for them.

internal import CLinux
public import SystemPackage

#if canImport(Glibc)
    internal import Glibc
#endif

/// The signals a service handles.
public enum ServiceSignal: Sendable {
    /// SIGTERM or SIGINT: stop.
    case stop
    /// SIGHUP: read the configuration again.
    case reload
}

/// Receives the service's signals, whichever thread they arrive on, and returns them one by one.
public enum ProcessSignals {
    /// To be called once, early in `main`. Writing to a closed socket becomes EPIPE.
    /// - Throws: the errors of pipe(2).
    public static func begin() throws(Errno) {
        let status = service_signals_begin()
        if status != 0 { throw Errno(rawValue: status) }
    }

    /// Waits for the next signal; blocks the calling thread.
    public static func next() -> ServiceSignal { service_signals_next() == SIGHUP ? .reload : .stop }
}
