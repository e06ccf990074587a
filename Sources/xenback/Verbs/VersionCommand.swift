// xenback version

import ArgumentParser
import BackendServer
import ControlProtocol

struct VersionCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "version",
        abstract: "The version of this program and of the running daemon."
    )

    @OptionGroup var options: CallOptions

    func run() throws {
        if !options.json { Terminal.print("xenback \(Release.version)\n") }
        try options.call(GetVersion(), timeout: .seconds(10)) { reply in
            "xenbackd \(reply.version) (process \(reply.process))\n"
        }
    }
}
