// xenback pci-assignable-list, and xm's name for it: pci-list-assignable-devices

import ArgumentParser
import ControlProtocol

struct PCIListAssignableCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pci-assignable-list",
        abstract: "The host's PCI cards that a guest could have.",
        aliases: ["pci-list-assignable-devices"]
    )

    @OptionGroup var options: CallOptions

    func run() throws { try options.call(PCIListAssignable()) { $0.text } }
}
