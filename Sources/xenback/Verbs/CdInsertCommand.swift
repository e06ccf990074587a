// xenback cd-insert DOMAIN DEVICE TARGET

import ArgumentParser
import ControlProtocol

struct CdInsertCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cd-insert",
        abstract: "Put an image into a domain's CD-ROM drive."
    )

    @Argument var domain: String
    @Argument var device: String
    @Argument(help: "The image's path on the host.") var target: String
    @OptionGroup var options: CallOptions

    func run() throws {
        try options.call(MediaInsert(domain: domain, device: device, target: target)) { _ in
            "inserted \(target) into \(device)\n"
        }
    }
}
