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

    /// Xen keeps a card that a guest has had away from the host's memory, in a quarantine that only the toolstack ends: its command
    /// does, and takes the card from the stub as well. Of a card that no guest has had it says that it cannot; that is why nobody
    /// listens. The reset is first: a card that a guest left busy would reach the host's memory.
    func run() throws {
        let address: String
        do throws(ControlClientError) { address = try options.answer(to: PCIReset(card: card)).card.address } catch {
            throw Terminal.failure("xenback: \(error)")
        }
        Toolstack.attempt(["pci-assignable-remove", address])
        try options.call(PCIAssignableRemove(card: card, rebind: rebind ? true : nil)) { reply in
            let now = reply.card.driver.map { "\($0.printable) has it" } ?? "no driver has it"
            return "\(reply.card.address.printable) is not hidden any more; \(now)\n"
        }
    }
}
