// xenback usb-list-assignable-devices

import ArgumentParser
import ControlProtocol

struct USBListAssignableCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "usb-list-assignable-devices",
        abstract: "The host's USB devices that a guest could have."
    )

    @OptionGroup var options: CallOptions

    func run() throws { try options.call(USBListAssignable()) { $0.text } }
}
