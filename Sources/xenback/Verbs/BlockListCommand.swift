// xenback block-list DOMAIN

import ArgumentParser
import ControlProtocol

struct BlockListCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "block-list",
        abstract: "A domain's disks: image, mode, size."
    )

    @Argument var domain: String
    @OptionGroup var options: CallOptions

    func run() throws { try options.call(BlockList(domain: domain)) { $0.text } }
}
