// xenback vhd-util COMMAND [OPTIONS]

import ArgumentParser

struct VHDUtilCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "vhd-util",
        abstract: "Make, look at and change VHD images, as blktap's vhd-util does.",
        discussion: """
            The commands, their options and exit codes are vhd-util's:
              xenback vhd-util create -n a.vhd -s 10240
              xenback vhd-util snapshot -n b.vhd -p a.vhd
              xenback vhd-util query -n b.vhd -vspf
            'systemd/install --vhd-util' installs it by that name, too.
            """
    )

    @Argument(parsing: .captureForPassthrough) var words: [String] = []

    func run() throws {
        let status = VHDUtility().run(words)
        if status != 0 { throw ExitCode(status) }
    }
}
