// xenback cd-eject DOMAIN DEVICE

import ArgumentParser
import ControlProtocol

struct CdEjectCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cd-eject",
        abstract: "Take the image out of a domain's CD-ROM drive."
    )

    @Argument var domain: String
    @Argument var device: String
    @OptionGroup var options: CallOptions

    func run() throws {
        try options.call(MediaEject(domain: domain, device: device)) { _ in "ejected \(device)\n" }
    }
}
