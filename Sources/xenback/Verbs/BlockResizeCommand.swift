// xenback block-resize DOMAIN DEVICE

import ArgumentParser
import ControlProtocol

struct BlockResizeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "block-resize",
        abstract: "Tell the guest the size that a disk's image has now.",
        discussion: "Change the image first: truncate --size 20G /images/data.img, or lvextend."
    )

    @Argument var domain: String
    @Argument var device: String
    @OptionGroup var options: CallOptions

    func run() throws {
        try options.call(BlockResize(domain: domain, device: device)) { reply in
            "\(device) has \(reply.sectors) sectors of 512 bytes now\n"
        }
    }
}
