// xenback list

import ArgumentParser
import ControlProtocol

struct ListCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list",
        abstract: "All devices of all domains, and what each is doing."
    )

    @OptionGroup var options: CallOptions

    func run() throws { try options.call(List()) { $0.text } }
}
