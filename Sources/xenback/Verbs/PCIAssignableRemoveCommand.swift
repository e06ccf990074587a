// xenback pci-assignable-remove [-r] CARD

import ArgumentParser
import ControlProtocol

struct PCIAssignableRemoveCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pci-assignable-remove",
        abstract: "Give a hidden PCI card back to the host."
    )

    @Flag(name: .customShort("r"), help: "Give it to the driver that had it; without this it has none.")
    var rebind = false
    @Argument(help: "As lspci shows it: 08:05.0 or 0000:08:05.0.") var card: String
    @OptionGroup var options: CallOptions

    func run() throws {
        try options.call(PCIAssignableRemove(card: card, rebind: rebind ? true : nil)) { reply in
            let now = reply.card.driver.map { "\($0.printable) has it" } ?? "no driver has it"
            return "\(reply.card.address.printable) is not hidden any more; \(now)\n"
        }
    }
}
