// What broker and worker have in common as programs: options, logger, loop, signals, exit.

public import BackendCore
internal import HostIO
public import Logging
public import SystemPackage
internal import XenWire

#if canImport(Glibc)
    internal import Glibc
#endif

/// What a broker or worker program is told by its command line.
public struct ServiceOptions: Sendable {
    /// Sockets, locks, journals.
    public var runDirectory: FilePath
    /// nil: no file, every setting as it is by default.
    public var configuration: FilePath?
    /// Overrides the configuration's.
    public var logLevel: Logger.Level?

    public init(runDirectory: FilePath = "/run/xenbackd", configuration: FilePath? = nil, logLevel: Logger.Level? = nil)
    {
        self.runDirectory = runDirectory
        self.configuration = configuration
        self.logLevel = logLevel
    }
}

/// The name and number of this release.
public enum Release {
    public static let version = "0.1.0"

    /// The version, and what tells this build from another of the same version: the program file's inode and time.
    static var build: String {
        "\(version) \((try? Files.edition(of: "/proc/self/exe")) ?? "unknown")"
    }
}

/// The program's path, for starting itself again.
func ownProgram() -> String {
    guard let path = try? Files.target(ofLink: "/proc/self/exe") else {
        return CommandLine.arguments.first ?? "xenbackd"
    }
    // The kernel's note that the file was replaced; the successor is what we want to start.
    return path.hasSuffix(" (deleted)") ? String(path.dropLast(10)) : path
}

/// A logger for a whole process; `<6>` before each line if the journal reads it.
func makeLogger(_ level: Logger.Level) -> Logger {
    let forJournal = unsafe getenv("JOURNAL_STREAM") != nil
    return Logger(label: "xenback") { _ in LineLog(level: level, forJournal: forJournal) }
}

/// What a configuration makes of a process: its device classes and how they run.
public struct DeviceSetup: Sendable {
    public var classes: [any DeviceClass]
    /// Data loops a worker may start.
    public var dataLoopLimit: Int
    public var logLevel: Logger.Level

    public init(classes: [any DeviceClass], dataLoopLimit: Int = DeviceSetup.usualLoops, logLevel: Logger.Level = .info)
    {
        self.classes = classes
        self.dataLoopLimit = dataLoopLimit
        self.logLevel = logLevel
    }

    /// min(processors, 4).
    public static var usualLoops: Int { min(max(sysconf(Int32(_SC_NPROCESSORS_ONLN)), 1), 4) }
}

/// The steps before the loop runs: each works or ends the process with one clear line.
struct ServiceStart {
    private let options: ServiceOptions
    var domain: DomainID?

    init(_ options: ServiceOptions) { self.options = options }

    func logger(_ configured: Logger.Level) -> Logger {
        var log = makeLogger(options.logLevel ?? configured)
        if let domain { log[metadataKey: "domain"] = "\(domain)" }
        return log
    }

    /// - Returns: what `step` returns; if it throws, the process exits with status 1.
    func attempt<R>(_ what: String, _ step: () throws -> R) -> R {
        do {
            return try step()
        } catch {
            logger(.info).critical("cannot start: \(what): \(error)")
            exit(1)
        }
    }
}

/// Runs a service: `body` on the loop, signals on this thread, until `body` has the exit status.
func runService(
    _ loop: EventLoop,
    onSignal: @escaping @Sendable (ServiceSignal) -> Void,
    body: @escaping @Sendable () async -> CInt
) -> Never {
    Task(executorPreference: loop) {
        exit(await body())
    }
    while true { onSignal(ProcessSignals.next()) }
}
