// xenbackd: the broker, or with --domain a worker, on the real hypervisor.

import ArgumentParser
import BackendServer
import Logging
import SystemPackage
import XenHypervisor
import XenWire

@main
enum Program {
    static func main() {
        if let line = WorkerLine(Array(CommandLine.arguments.dropFirst())) { Xenbackd.serve(line) }
        Xenbackd.main()
    }
}

struct Xenbackd: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "xenbackd",
        abstract: "Serve paravirtual devices to Xen guests.",
        discussion: """
            Without --domain: the broker, which starts a worker (this program with --domain) for every guest that has \
            devices of ours. Signals: TERM ends the workers after their I/O in flight and leaves the guests' devices \
            as they are, for the next start to take up; HUP reads the configuration again.
            """,
        version: Release.version
    )

    @Option(help: "The configuration file (default: /etc/xenback/xenbackd.toml, if it is there).")
    var config: String?

    @Option(help: "Where sockets, locks and journals live; on a file system in memory (default: /run/xenbackd).")
    var runDirectory: String?

    @Option(help: "Serve this domain's devices; the broker starts its workers so.")
    var domain: UInt16?

    @Option(help: "trace, debug, info, notice, warning, error or critical.", transform: Xenbackd.level)
    var logLevel: Logger.Level?

    func run() throws {
        if let domain {
            guard let domain = DomainID(domain) else { throw ValidationError("there is no domain \(domain)") }
            Xenbackd.serve(line(for: domain))
        }
        let own = self
        BrokerProgram.run(
            Xenbackd.options(config: config, runDirectory: runDirectory, logLevel: logLevel),
            hypervisor: { try XenHypervisor() },
            workerCommand: { own.line(for: $0).words },
            keepsInterfaces: true
        )
    }

    /// The broker's command line for a worker, with the place of the settings.
    private func line(for start: WorkerStart) -> WorkerLine {
        WorkerLine(
            domain: start.domain,
            config: start.settings?.string ?? config,
            runDirectory: start.runDirectory.string,
            logLevel: logLevel
        )
    }

    /// The command line of a worker that a person starts.
    private func line(for domain: DomainID) -> WorkerLine {
        WorkerLine(domain: domain, config: config, runDirectory: runDirectory, logLevel: logLevel)
    }

    fileprivate static func serve(_ line: WorkerLine) -> Never {
        WorkerProgram.run(
            options(config: line.config, runDirectory: line.runDirectory, logLevel: line.logLevel),
            domain: line.domain,
            hypervisor: { try XenHypervisor() }
        )
    }

    private static func options(config: String?, runDirectory: String?, logLevel: Logger.Level?) -> ServiceOptions {
        ServiceOptions(
            config.map { .file(FilePath($0)) } ?? .defaultFile,
            runDirectory: runDirectory.map { FilePath($0) },
            logLevel: logLevel
        )
    }

    private static func level(_ text: String) throws -> Logger.Level {
        guard let level = Logger.Level(rawValue: text) else { throw ValidationError("there is no log level '\(text)'") }
        return level
    }
}
