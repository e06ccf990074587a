// xenback block-attach DOMAIN LINE…

import ArgumentParser
import ControlProtocol

struct BlockAttachCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "block-attach",
        abstract: "Give a running domain a disk.",
        discussion: """
            The disk is described as in xl.cfg (xl-disk-configuration(5)); several words are joined with commas:
              xenback block-attach web1 /images/data.img,raw,xvdb,rw
              xenback block-attach web1 vdev=xvdb access=ro target=/images/data.img
            xm's words do as well:
              xenback block-attach web1 phy:/dev/vg/data /dev/xvdb w
            """
    )

    @Argument var domain: String
    @Argument(help: "An xl disk line.") var line: [String]
    @OptionGroup var options: CallOptions

    func run() throws {
        let line = DiskLine.joined(line)
        do throws(DeviceLineError) {
            _ = try DiskLine(parsing: line)
        } catch {
            throw Terminal.failure("xenback: \(error)")
        }
        try options.call(BlockAttach(domain: domain, disk: line)) { reply in
            "attached \(reply.device.node ?? "\(reply.device.index)") as \(reply.device.path)\n"
        }
    }
}
