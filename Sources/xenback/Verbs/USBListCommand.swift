// xenback usb-list DOMAIN

import ArgumentParser
import ControlProtocol

struct USBListCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "usb-list",
        abstract: "A domain's USB controllers and what is in their ports."
    )

    @Argument var domain: String
    @OptionGroup var options: CallOptions

    func run() throws { try options.call(USBList(domain: domain)) { $0.text } }
}
