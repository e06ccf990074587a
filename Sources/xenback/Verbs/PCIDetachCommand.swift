// xenback pci-detach [-f] DOMAIN CARD

import ArgumentParser
import ControlProtocol

struct PCIDetachCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pci-detach",
        abstract: "Take a PCI card from a running domain.",
        discussion: "xl does it; the exit status is xl's. The card stays hidden."
    )

    @Flag(name: .customShort("f"), help: "Even if the domain does not let go of it.") var force = false
    @Argument(help: "Number or name.") var domain: String
    @Argument(help: "As pci-list shows it: 08:05.0 or 0000:08:05.0.") var card: String
    @OptionGroup var options: CallOptions

    func run() throws {
        let reply: PCIList.Reply
        do throws(ControlClientError) {
            reply = try options.answer(to: PCIList(domain: domain))
        } catch {
            throw Terminal.failure("xenback: \(error)")
        }
        guard let found = reply.cards.first(where: { $0.address == card || $0.address == "0000:\(card)" }) else {
            let cards = reply.cards.map(\.address.printable).joined(separator: ", ")
            let others = cards.isEmpty ? "it has none" : "it has \(cards)"
            throw Terminal.failure("xenback: domain '\(domain)' has no card '\(card)'; \(others)")
        }
        if options.json { Terminal.print(ControlMessage.json(reply)) }
        try Toolstack.run(["pci-detach"] + (force ? ["-f"] : []) + [domain, found.address])
    }
}
