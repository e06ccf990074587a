// The command line: the verbs, and where the daemon listens.

import ArgumentParser
import BackendServer
import Glibc

@main
enum Program {
    static func main() async {
        // The name that `systemd/install --vhd-util` gives it.
        let words = CommandLine.arguments
        if words.first?.split(separator: "/").last == "vhd-util" { exit(VHDUtility().run(Array(words.dropFirst()))) }
        await Xenback.main()
    }
}

struct Xenback: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "xenback",
        abstract: "Look at and steer the device backends that xenbackd runs.",
        discussion: """
            A DOMAIN is a number or a name, as xl shows them. A DEVICE is a disk's name in the guest (xvda), a \
            device's number (51712), or its kind and number (vif/0, vusb/0).
            """,
        version: Release.version,
        subcommands: [
            ListCommand.self, ShowCommand.self, BlockAttachCommand.self, BlockDetachCommand.self,
            BlockListCommand.self, BlockResizeCommand.self, CdInsertCommand.self, CdEjectCommand.self,
            NetworkListCommand.self, Network2AttachCommand.self, Network2DetachCommand.self, Network2ListCommand.self,
            USBListAssignableCommand.self, USBListCommand.self,
            USBControllerCreateCommand.self, USBControllerDestroyCommand.self, USBAttachCommand.self,
            USBDetachCommand.self,
            PCIListAssignableCommand.self, PCIAssignableAddCommand.self, PCIAssignableRemoveCommand.self,
            PCICheckCommand.self, PCIAttachCommand.self, PCIDetachCommand.self, PCIListCommand.self,
            PCIVirtualFunctionsCommand.self, VHDUtilCommand.self,
            HotplugCommand.self, VersionCommand.self, DemoCommand.self, DemoBrokerCommand.self, DemoWorkerCommand.self,
        ]
    )
}
