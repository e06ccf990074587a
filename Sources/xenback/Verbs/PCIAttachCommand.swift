// xenback pci-attach DOMAIN LINE [VSLOT]

import ArgumentParser
import ControlProtocol

struct PCIAttachCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pci-attach",
        abstract: "Give a hidden PCI card to a running domain.",
        discussion: "Checks the card first, as pci-check does; then xl does it. The exit status is xl's."
    )

    @Argument(help: "Number or name.") var domain: String
    @Argument(help: "As in xl-pci-configuration(5): 08:05.0, 0000:08:05.*, 08:05.0,permissive=1.") var line: String
    @Argument(help: "Where a guest with a device model sees it: 00 to 1f.") var virtualSlot: String?
    @OptionGroup var options: CallOptions

    func run() throws {
        let wanted = virtualSlot.map { "\(line),vslot=\($0)" } ?? line
        let reply: PCIPrepare.Reply
        do throws(ControlClientError) {
            reply = try options.answer(to: PCIPrepare(domain: domain, line: wanted))
        } catch {
            throw Terminal.failure("xenback: \(error)")
        }
        if options.json { Terminal.print(ControlMessage.json(reply)) }
        let warnings = reply.warnings
        guard reply.isAssignable else {
            throw Terminal.failure(warnings + "xenback: it cannot be given away like this")
        }
        if !warnings.isEmpty { _ = Terminal.failure(String(warnings.dropLast())) }
        try Toolstack.run(["pci-attach", "\(reply.domain)", reply.line])
    }
}
