// xenback network-list DOMAIN

import ArgumentParser
import ControlProtocol

struct NetworkListCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "network-list",
        abstract: "A domain's network cards: address, interface, packets and bytes (tx: sent by the guest)."
    )

    @Argument var domain: String
    @OptionGroup var options: CallOptions

    func run() throws { try options.call(NetworkList(domain: domain)) { $0.text } }
}
