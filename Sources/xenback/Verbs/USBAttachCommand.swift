// xenback usb-attach DOMAIN DEVID PORTNUMBER BUSID

import ArgumentParser
import ControlProtocol

struct USBAttachCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "usb-attach",
        abstract: "Put a USB device of the host into a port of a domain's controller."
    )

    @Argument var domain: String
    @Argument(help: "The controller's number, as usb-list shows it.") var devId: String
    @Argument(help: "From 1.") var portNumber: Int
    @Argument(help: "Where the device is plugged in (1-1.4), or a rule that it fits.") var busId: String
    @OptionGroup var options: CallOptions

    func run() throws {
        let verb = USBAttach(domain: domain, device: devId, port: portNumber, bus: busId)
        try options.call(verb) { reply in
            guard let device = reply.port.device else {
                return "port \(portNumber) waits for a device that is \(busId)\n"
            }
            return "attached \(device.bus) (\(device.text)) to port \(portNumber)\n"
        }
    }
}
