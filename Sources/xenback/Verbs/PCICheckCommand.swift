// xenback pci-check CARD [DOMAIN]

import ArgumentParser
import ControlProtocol

struct PCICheckCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pci-check",
        abstract: "Say whether a PCI card can be given to a guest, and why not.",
        discussion: "The exit status is 0 if nothing stands in the way."
    )

    @Argument(help: "As lspci shows it: 08:05.0 or 0000:08:05.0.") var card: String
    @Argument(help: "The guest, if it exists already.") var domain: String?
    @OptionGroup var options: CallOptions

    func run() throws {
        let reply: PCICheck.Reply
        do throws(ControlClientError) {
            reply = try options.answer(to: PCICheck(card: card, domain: domain))
        } catch {
            throw Terminal.failure("xenback: \(error)")
        }
        Terminal.print(options.json ? ControlMessage.json(reply) : reply.text)
        if !reply.isAssignable { throw ExitCode.failure }
    }
}
