// xenback usb-hc-destroy DOMAIN DEVID

import ArgumentParser
import ControlProtocol

struct USBControllerDestroyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "usb-hc-destroy",
        abstract: "Take a USB controller from a running domain, and the devices in it."
    )

    @Argument var domain: String
    @Argument(help: "The controller's number, as usb-list shows it.") var devId: String
    @Flag(help: "Take it away even if the guest does not let go of it in time.")
    var force = false
    @OptionGroup var options: CallOptions

    func run() throws {
        let verb = USBControllerDestroy(domain: domain, device: devId, force: force ? true : nil)
        try options.call(verb) { _ in "destroyed USB controller \(devId)\n" }
    }
}
