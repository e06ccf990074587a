// xenback usb-hc-create DOMAIN USBSPECVER NUMBEROFPORTS, or DOMAIN LINE…

import ArgumentParser
import ControlProtocol

struct USBControllerCreateCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "usb-hc-create",
        abstract: "Give a running domain a USB controller.",
        usage: """
            xenback usb-hc-create <domain> <usb-spec-ver> <number-of-ports>
            xenback usb-hc-create <domain> <line> ...
            """,
        discussion: """
            By version (1 or 2) and number of ports (1 to 31), or as a configuration has it, with devices in the ports; \
            several words are joined with commas:
              xenback usb-hc-create web1 2 8
              xenback usb-hc-create web1 'usbver=2, numports=8, port_1=1-1, port_2=1-2'
            """
    )

    @Argument var domain: String
    @Argument(help: "Version and number of ports, or a line: usbver=, numports=, port_1= … port_31=")
    var controller: [String]
    @OptionGroup var options: CallOptions

    /// The line that the words stand for.
    private var line: String {
        if controller.contains(where: { $0.contains("=") }) { return controller.joined(separator: ",") }
        return zip(["usbver", "numports"], controller).map { "\($0)=\($1)" }.joined(separator: ", ")
    }

    func validate() throws {
        guard controller.contains(where: { $0.contains("=") }) || controller.count == 2 else {
            throw ValidationError("a controller is a version and a number of ports: usb-hc-create \(domain) 2 8")
        }
    }

    func run() throws {
        do throws(DeviceLineError) {
            _ = try USBLine(parsing: line)
        } catch {
            throw Terminal.failure("xenback: \(error)")
        }
        try options.call(USBControllerCreate(domain: domain, controller: line)) { reply in
            "created USB controller \(reply.device.index) as \(reply.device.path)\n"
        }
    }
}
