// xenback show DOMAIN [DEVICE]

import ArgumentParser
import ControlProtocol

struct ShowCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "show",
        abstract: "Everything about a domain's devices: states, features, counters, latencies, the last error."
    )

    @Argument var domain: String
    @Argument(help: "One device; all of the domain if left out.") var device: String?
    @OptionGroup var options: CallOptions

    func run() throws { try options.call(Show(domain: domain, device: device)) { $0.text } }
}
