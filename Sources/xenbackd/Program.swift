// xenbackd: the broker, or with --domain a worker, on the real hypervisor.

import ArgumentParser
import BackendServer
import Logging
import SystemPackage
import XenHypervisor
import XenWire

@main
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
        let options = ServiceOptions(
            config.map { .file(FilePath($0)) } ?? .usualFile,
            runDirectory: runDirectory.map { FilePath($0) },
            logLevel: logLevel
        )
        guard let number = domain else {
            let handedOn = handedOn
            BrokerProgram.run(
                options,
                hypervisor: { try XenHypervisor() },
                workerCommand: { handedOn + ["--domain", "\($0)"] },
                keepsInterfaces: true
            )
        }
        guard let domain = DomainID(number) else { throw ValidationError("there is no domain \(number)") }
        WorkerProgram.run(options, domain: domain, hypervisor: { try XenHypervisor() })
    }

    /// What a worker is told as well.
    private var handedOn: [String] {
        var words: [String] = []
        if let config { words += ["--config", config] }
        if let runDirectory { words += ["--run-directory", runDirectory] }
        if let logLevel { words += ["--log-level", logLevel.rawValue] }
        return words
    }

    private static func level(_ text: String) throws -> Logger.Level {
        guard let level = Logger.Level(rawValue: text) else { throw ValidationError("there is no log level '\(text)'") }
        return level
    }
}
