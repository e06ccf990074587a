// xenback pci-assignable-add CARD

import ArgumentParser
import ControlProtocol

struct PCIAssignableAddCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pci-assignable-add",
        abstract: "Hide a PCI card from the host's drivers, so that a guest can have it."
    )

    @Argument(help: "As lspci shows it: 08:05.0 or 0000:08:05.0.") var card: String
    @OptionGroup var options: CallOptions

    func run() throws {
        try options.call(PCIAssignableAdd(card: card)) { reply in
            let before = reply.card.originalDriver.map { "; it was \($0.printable)'s" } ?? ""
            return "\(reply.card.address.printable) is hidden\(before)\n"
        }
    }
}
