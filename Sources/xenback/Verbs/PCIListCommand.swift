// xenback pci-list DOMAIN

import ArgumentParser
import ControlProtocol

struct PCIListCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pci-list",
        abstract: "A domain's PCI cards: where the guest and where the host sees them, and who serves them."
    )

    @Argument(help: "Number or name.") var domain: String
    @OptionGroup var options: CallOptions

    func run() throws { try options.call(PCIList(domain: domain)) { $0.text } }
}
