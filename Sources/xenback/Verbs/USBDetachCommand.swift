// xenback usb-detach DOMAIN DEVID PORTNUMBER

import ArgumentParser
import ControlProtocol

struct USBDetachCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "usb-detach",
        abstract: "Take the USB device out of a port of a domain's controller; the host has it back."
    )

    @Argument var domain: String
    @Argument(help: "The controller's number, as usb-list shows it.") var devId: String
    @Argument(help: "From 1.") var portNumber: Int
    @OptionGroup var options: CallOptions

    func run() throws {
        try options.call(USBDetach(domain: domain, device: devId, port: portNumber)) { _ in
            "detached what was in port \(portNumber)\n"
        }
    }
}
