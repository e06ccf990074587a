// What a service tells systemd, and what systemd keeps for it, without libsystemd.

internal import CLinux
public import SystemPackage

#if canImport(Glibc)
    internal import Glibc
#endif

/// The service manager that started this process, if one did (sd_notify(3), sd_listen_fds(3)). Without one,
/// notifications do nothing.
public enum ServiceManager {
    /// Reports that the service is ready; for units of `Type=notify`.
    public static func ready() throws(Errno) { try notify("READY=1") }

    /// Reports that the service is about to end.
    public static func stopping() throws(Errno) { try notify("STOPPING=1") }

    /// Has the manager keep a copy of a descriptor while the service restarts, and while it runs, for the next process
    /// to take (`FDSTORE=1`; the unit's `FileDescriptorStoreMax` says how many). It closes copies whose poll(2) says that
    /// they are of no use any more.
    /// - Parameter name: up to 255 characters of ASCII, none of them a colon.
    public static func store(_ descriptor: CInt, as name: String) throws(Errno) {
        precondition(isName(name), "no name for a stored descriptor: \(name)")
        try notify("FDSTORE=1\nFDNAME=\(name)", passing: descriptor)
    }

    /// Has the manager close its copy of every descriptor of that name (`FDSTOREREMOVE=1`).
    public static func unstore(_ name: String) throws(Errno) {
        precondition(isName(name), "no name for a stored descriptor: \(name)")
        try notify("FDSTOREREMOVE=1\nFDNAME=\(name)")
    }

    /// A descriptor that a former process of the service had stored.
    public struct Stored: Sendable {
        public let name: String
        public let file: OpenFile
        public init(name: String, file: OpenFile) {
            self.name = name
            self.file = file
        }
    }

    /// Takes over what the manager kept. Call it once, before anything else uses descriptors: these are numbered from
    /// 3. It removes them from the environment.
    public static func takeStored() -> [Stored] {
        // SAFETY: nobody else changes the environment while the service starts; texts are copied at once.
        let stored = stored({ unsafe getenv($0).map { unsafe String(cString: $0) } }, process: getpid())
        for name in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] { _ = unsafe unsetenv(name) }
        return stored
    }

    /// - Parameters:
    ///   - variable: the environment.
    ///   - first: the first descriptor (`SD_LISTEN_FDS_START`); others are for tests.
    static func stored(_ variable: (String) -> String?, process: CInt, first: CInt = 3) -> [Stored] {
        // Variables inherited from a parent are about its descriptors, not ours.
        guard variable("LISTEN_PID").flatMap({ CInt($0) }) == process,
            let count = variable("LISTEN_FDS").flatMap({ CInt($0) }), (1...65536).contains(count)
        else { return [] }
        let names = (variable("LISTEN_FDNAMES") ?? "").split(separator: ":", omittingEmptySubsequences: false)
        return (0..<count).compactMap { place in
            // For us alone, not for workers. A descriptor that is not open is skipped.
            guard fcntl(first + place, F_SETFD, FD_CLOEXEC) == 0 else { return nil }
            let name = names.indices.contains(Int(place)) ? String(names[Int(place)]) : "unknown"
            return Stored(name: name, file: OpenFile(adopting: first + place))
        }
    }

    /// systemd's rule for `FDNAME` (src/basic/fd-util.c, `fdname_is_valid`).
    private static func isName(_ name: String) -> Bool {
        name.utf8.count <= 255 && name.utf8.allSatisfy { $0 >= 0x20 && $0 < 0x7F && $0 != UInt8(ascii: ":") }
    }

    private static func notify(_ text: String, passing descriptor: CInt = -1) throws(Errno) {
        // SAFETY: nobody changes the environment of a running service; the text is copied at once.
        guard let socket = unsafe getenv("NOTIFY_SOCKET") else { return }
        // SAFETY: both texts live, NUL-terminated, until the call returns.
        let status = unsafe service_notify(socket, text, descriptor)
        if status != 0 { throw Errno(rawValue: status) }
    }
}
