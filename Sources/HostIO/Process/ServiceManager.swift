// What a service tells systemd, without libsystemd.

internal import CLinux
public import SystemPackage

#if canImport(Glibc)
    internal import Glibc
#endif

/// The service manager that started this process, if one did (sd_notify(3)).
public enum ServiceManager {
    /// Tells that the service is ready; for units of `Type=notify`. Without a manager it does nothing.
    public static func ready() throws(Errno) { try notify("READY=1") }

    /// Tells that the service is about to end.
    public static func stopping() throws(Errno) { try notify("STOPPING=1") }

    private static func notify(_ text: String) throws(Errno) {
        // SAFETY: nobody changes the environment of a running service; the text is copied at once.
        guard let socket = unsafe getenv("NOTIFY_SOCKET") else { return }
        // SAFETY: both texts live, NUL-terminated, until the call returns.
        let status = unsafe service_notify(socket, text)
        if status != 0 { throw Errno(rawValue: status) }
    }
}
