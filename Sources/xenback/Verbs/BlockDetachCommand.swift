// xenback block-detach DOMAIN DEVICE

import ArgumentParser
import ControlProtocol

struct BlockDetachCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "block-detach",
        abstract: "Take a disk from a running domain."
    )

    @Argument var domain: String
    @Argument var device: String
    @Flag(help: "Take it away even if the guest does not let go of it in time. The guest sees I/O errors.")
    var force = false
    @OptionGroup var options: CallOptions

    func run() throws {
        try options.call(BlockDetach(domain: domain, device: device, force: force ? true : nil)) { _ in
            "detached \(device)\n"
        }
    }
}
