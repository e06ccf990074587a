// Broker and worker on the simulated hypervisor: the demo's and the tests' second and third process.

import ArgumentParser
import BackendCore
import BackendServer
import HostNetwork
import Logging
import NetBackend
import SimulatedHost
import SimulatedHypervisor
import SystemPackage
import USBBackend
import XenWire

#if canImport(Glibc)
    import Glibc
#endif

/// The options of both. Not for people: `xenback demo` and the tests start them.
struct DemoServiceOptions: ParsableArguments {
    @Option var machine: String
    /// The domain that the service runs in: another than 0 is a driver domain.
    @Option var ownDomain: String = "0"
    @Option var runDirectory: String
    @Option var logLevel: String = "warning"
    /// A settings file, for tests of its being read again.
    @Option var settings: String?
    /// Where a `PacketExchange` stands for the host's network; without it cards are interfaces of this kernel.
    @Option var network: String?
    /// Where a `DemoBus` is; without it there is no USB.
    @Option var usb: String?
    /// A device whose backend kills its worker as soon as it is made, as `vbd3/51712`: for tests of crash attribution.
    @Option var poison: String?

    var service: ServiceOptions {
        ServiceOptions(
            settings.map { .file(FilePath($0)) } ?? .fixed(Configuration()),
            runDirectory: FilePath(runDirectory),
            logLevel: Logger.Level(rawValue: logLevel)
        )
    }

    /// The arguments again, for a worker.
    /// - Parameter settings: where the broker's are.
    func words(_ settings: FilePath?) -> [String] {
        ["--machine", machine, "--own-domain", ownDomain, "--run-directory", runDirectory, "--log-level", logLevel]
            + (poison.map { ["--poison", $0] } ?? [])
            + (settings.map { ["--settings", $0.string] } ?? [])
            + (network.map { ["--network", $0] } ?? [])
            + (usb.map { ["--usb", $0] } ?? [])
    }

    /// Broker and workers end with the machine, since nothing else would end them.
    func hypervisor() throws -> SimulatedHypervisor {
        guard let own = DomainID(text: ownDomain) else { throw ValidationError("there is no domain \(ownDomain)") }
        let hypervisor = try SimulatedHypervisor(attaching: machine, as: own)
        try hypervisor.whenMachineEnds { Glibc.exit(3) }
        return hypervisor
    }

    var classes: ClassFactory {
        let (network, usb, poison) = (network, usb, poison)
        return { configuration in
            standardClasses(configuration).compactMap { usual in
                var devices = usual
                if let controllers = devices as? USBClass {
                    guard let usb else { return nil }
                    devices = USBClass(host: DemoBus(FilePath(usb)), servesQusb: controllers.servesQusb)
                }
                if let network, let cards = devices as? NetClass {
                    devices = NetClass(
                        capabilities: cards.capabilities,
                        host: SocketNetwork(directory: FilePath(network))
                    )
                }
                if let poison { devices = PoisonedClass(inner: devices, poison: poison) }
                return devices
            }
        }
    }
}

struct DemoBrokerCommand: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "demo-broker", shouldDisplay: false)
    @OptionGroup var options: DemoServiceOptions

    func run() throws {
        let options = options
        BrokerProgram.run(
            options.service,
            hypervisor: { try options.hypervisor() },
            workerCommand: { start in
                let domain = start.domain.map { "\($0)" } ?? WorkerLine.spare
                return ["demo-worker"] + options.words(start.settings) + ["--domain", domain]
            },
            classes: options.classes
        )
    }
}

struct DemoWorkerCommand: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "demo-worker", shouldDisplay: false)
    @OptionGroup var options: DemoServiceOptions
    /// A number, or `spare`: standard input tells.
    @Option var domain: String

    func run() throws {
        let domain = DomainID(text: domain)
        if domain == nil, self.domain != WorkerLine.spare { throw ValidationError("there is no domain \(self.domain)") }
        WorkerProgram.run(
            options.service,
            domain: domain,
            hypervisor: { try options.hypervisor() },
            classes: options.classes
        )
    }
}

/// A device class one of whose devices is fatal.
private struct PoisonedClass: DeviceClass {
    let inner: any DeviceClass
    let poison: String

    var kinds: [DeviceKind] { inner.kinds }
    func owns(_ keys: BackendNodes) -> Bool { inner.owns(keys) }

    func makeBackend(_ path: DevicePath, _ environment: WorkerEnvironment) -> any DeviceBackend {
        let name = "\(path.kind)/\(path.index)"
        if name == poison {
            environment.marks?.mark(for: name)?.begin()
            kill(getpid(), SIGKILL)
        }
        return inner.makeBackend(path, environment)
    }
}
