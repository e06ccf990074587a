// What broker and worker have in common as programs: options, logger, loop, signals, exit.

public import BackendCore
internal import BlockBackend
internal import HostIO
internal import HostNetwork
internal import HostPCI
internal import HostUSB
public import Logging
internal import NetBackend
internal import PCIBackend
public import SystemPackage
internal import USBBackend
public import XenWire

#if canImport(Glibc)
    internal import Glibc
#endif

/// What a broker or worker program is told by its command line.
public struct ServiceOptions: Sendable {
    /// Where the settings come from.
    public enum Settings: Sendable {
        /// `/etc/xenback/xenbackd.toml`, if it is there.
        case defaultFile
        case file(FilePath)
        case fixed(Configuration)
    }

    public var settings: Settings
    /// Sockets, locks, journals; overrides the configuration's.
    public var runDirectory: FilePath?
    /// Overrides the configuration's.
    public var logLevel: Logger.Level?

    public init(_ settings: Settings = .defaultFile, runDirectory: FilePath? = nil, logLevel: Logger.Level? = nil) {
        self.settings = settings
        self.runDirectory = runDirectory
        self.logLevel = logLevel
    }

    /// The settings as they are now, with what the command line overrides.
    func read() throws(ConfigurationError) -> ReadSettings {
        var read =
            switch settings {
            case .defaultFile: try ReadSettings(fileIfPresent: Configuration.defaultPath)
            case .file(let path): try ReadSettings(file: path)
            case .fixed(let fixed): ReadSettings(configuration: fixed, text: nil)
            }
        read.configuration.runDirectory = runDirectory ?? read.configuration.runDirectory ?? "/run/xenbackd"
        read.configuration.logLevel = logLevel ?? read.configuration.logLevel
        return read
    }
}

/// Settings, and the text that they were read from.
struct ReadSettings {
    var configuration: Configuration
    /// nil: from no file.
    var text: String?
}

extension ReadSettings {
    init(file: FilePath) throws(ConfigurationError) {
        let text = try Configuration.text(of: file)
        self.init(configuration: try Configuration(toml: text, file: file.string), text: text)
    }

    /// A missing file counts as empty.
    init(fileIfPresent file: FilePath) throws(ConfigurationError) {
        do throws(ConfigurationError) {
            try self.init(file: file)
        } catch {
            guard error.isMissingFile else { throw error }
            self.init(configuration: Configuration(), text: "")
        }
    }
}

/// What a broker puts on a worker's command line, so that the worker has the broker's settings whatever has happened to
/// their file.
public struct WorkerStart: Sendable {
    /// nil: a spare worker, which is told later.
    public let domain: DomainID?
    /// nil: the broker's are from no file.
    public let settings: FilePath?
    public let runDirectory: FilePath
}

/// The name and number of this release.
public enum Release {
    public static let version = "0.1.0"

    /// The version, and what distinguishes this build from another of the same version: the program file's inode and
    /// time.
    static var build: String {
        "\(version) \((try? Files.edition(of: "/proc/self/exe")) ?? "unknown")"
    }
}

/// The program's path, for starting itself again.
func ownProgram() -> String {
    guard let path = try? Files.target(ofLink: "/proc/self/exe") else {
        return CommandLine.arguments.first ?? "xenbackd"
    }
    // The kernel's note that the file was replaced; its replacement is what we want to start.
    return path.hasSuffix(" (deleted)") ? String(path.dropLast(10)) : path
}

/// A logger for a whole process; `<6>` before each line if the journal reads it.
func makeLogger(_ level: Logger.Level) -> Logger {
    let forJournal = unsafe getenv("JOURNAL_STREAM") != nil
    return Logger(label: "xenback") { _ in LineLog(level: level, forJournal: forJournal) }
}

/// The device classes that a configuration asks for.
public typealias ClassFactory = @Sendable (Configuration) -> [any DeviceClass]

/// Every device class of this build, as configured.
public let standardClasses: ClassFactory = { configuration in
    let block = configuration.block
    let vbd: BlockClass.ScriptedDisks =
        switch block.vbd {
        case .script: .script
        case .all: .all
        case Configuration.OwnVbd.none?: .none
        case nil: .automatic
        }
    let capabilities = BlockCapabilities(
        maxQueues: block.queues ?? defaultDataLoops,
        maxRingPageOrder: block.ringPageOrder,
        persistentGrants: block.persistentGrants
    )
    let disks = BlockClass(vbd: vbd, servesQdisk: block.qdisk, capabilities: capabilities)
    return [disks] + networkClasses(configuration) + usbClasses(configuration) + pciClasses(configuration)
}

private func networkClasses(_ configuration: Configuration) -> [any DeviceClass] {
    guard configuration.net.vif else { return [] }
    let placement: NetCapabilities.Placement =
        switch configuration.net.nativeSetup {
        case .driverDomain: .automatic
        case .always: .native
        case .never: .script
        }
    let cards = NetCapabilities(
        maxQueues: configuration.net.queues ?? defaultNetQueues,
        placement: placement,
        usesVhost: configuration.net.vhost
    )
    return [NetClass(capabilities: cards, host: KernelNetwork())]
}

private func usbClasses(_ configuration: Configuration) -> [any DeviceClass] {
    guard configuration.usb.vusb else { return [] }
    let run = RunDirectory(configuration.runDirectory ?? "/run/xenbackd")
    return [USBClass(host: KernelUSB(KernelUSB.Places(locks: run.usbLocks)), servesQusb: configuration.usb.qusb)]
}

private func pciClasses(_ configuration: Configuration) -> [any DeviceClass] {
    guard configuration.pci.pci else { return [] }
    let run = RunDirectory(configuration.runDirectory ?? "/run/xenbackd")
    return [PCIClass(host: KernelPCIHost(.ofThisHost, locks: run.pciLocks), settings: configuration.pci.settings)]
}

extension PCIStub {
    /// The driver that holds this host's hidden cards, with what it remembers over reboots of the service.
    static let ofThisHost = PCIStub(memory: "/var/lib/xenbackd/pci")
}

/// min(processors, 8), as in Linux's netback.
var defaultNetQueues: Int { min(max(sysconf(Int32(_SC_NPROCESSORS_ONLN)), 1), 8) }

/// min(processors, 4).
var defaultDataLoops: Int { min(max(sysconf(Int32(_SC_NPROCESSORS_ONLN)), 1), 4) }

/// The steps before the loop runs: each works or ends the process with one clear line.
struct ServiceStart {
    var domain: DomainID?

    func logger(_ level: Logger.Level) -> Logger {
        var log = makeLogger(level)
        if let domain { log[metadataKey: "domain"] = "\(domain)" }
        return log
    }

    /// - Returns: what `step` returns; if it throws, the process exits with status 1.
    func attempt<R>(_ what: String, _ step: () throws -> R) -> R {
        do {
            return try step()
        } catch {
            let text = (error as? Errno).map(HostShortage.text) ?? "\(error)"
            logger(.info).critical("cannot start: \(what): \(text)")
            exit(1)
        }
    }
}

extension ServiceStart {
    /// Retries a step until the host has what it needs: restarting would only fail again.
    /// - Returns: what `step` returns; after an error that waiting does not cure, the process exits with status 1.
    func persist<R>(_ what: String, _ log: Logger, _ step: () throws(Errno) -> R) -> R {
        var isTold = false
        while true {
            do throws(Errno) {
                return try step()
            } catch {
                guard HostShortage.cure(error) != nil else { return attempt(what) { throw error } }
                if !isTold { log.error("waiting for \(what): \(HostShortage.text(error))") }
                isTold = true
                usleep(250_000)
            }
        }
    }

    /// What broker and worker begin with: settings, a logger, the run directory.
    func prepare(_ options: ServiceOptions) -> (settings: ReadSettings, log: Logger, run: RunDirectory) {
        let settings = attempt("configuration") { try options.read() }
        let run = RunDirectory(settings.configuration.runDirectory ?? "/run/xenbackd")
        attempt("run directory \(run.path)") { try run.prepare() }
        return (settings, logger(settings.configuration.logLevel), run)
    }
}

/// Runs a service: `body` on the loop, signals on this thread, until `body` returns the exit status.
func runService(
    _ loop: EventLoop,
    onSignal: @escaping @Sendable (ServiceSignal) -> Void,
    body: @escaping @Sendable () async -> CInt
) -> Never {
    Task(executorPreference: loop) {
        // Not exit(3): its handlers would run beside threads that still work.
        _exit(await body())
    }
    while true { onSignal(ProcessSignals.next()) }
}
