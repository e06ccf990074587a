// USB controllers and devices as text, in the form that xm 4.0 gave them.

internal import XenWire

extension USBListAssignable.Reply {
    /// `1-1.4        : ID 0781:5567 SanDisk Cruzer`
    public var text: String {
        if devices.isEmpty { return "no assignable devices\n" }
        return devices.map { "\($0.bus.printable.padded(13)): \($0.text)\n" }.joined()
    }
}

extension USBList.Reply {
    /// For each controller a line below the heading, then one for each port.
    public var text: String {
        if controllers.isEmpty { return "no USB controllers\n" }
        return "Idx BE  state usb-ver BE-path\n" + controllers.map(\.text).joined()
    }
}

extension USBController {
    fileprivate var text: String {
        let version = version.map { $0 == 1 ? "USB1.1" : "USB2.0" } ?? "?"
        let cells = [
            "\(device.index)".padded(3), "\(backend)".padded(3), device.stateNumber.padded(5), version.padded(7),
            "\(DomainID.homes)/\(backend)/\(device.path)",
        ]
        return cells.joined(separator: " ").printable + "\n" + ports.map(\.text).joined()
    }
}

extension USBController.Port {
    /// `port 1: 1-1.4 [ID 0781:5567 SanDisk Cruzer]`, and what put it there if that was a rule.
    fileprivate var text: String {
        let start = "port \(number):"
        return switch (device, wanted) {
        case (nil, nil): start + "\n"
        case (nil, let wanted?): start + " \(wanted.printable) [\((problem ?? "not there").printable)]\n"
        case (let device?, let wanted):
            start + " \(device.bus.printable) [\(device.text)]"
                + (wanted == nil || wanted == device.bus ? "" : " by \(wanted?.printable ?? "")") + "\n"
        }
    }
}

extension USBDevice {
    /// `ID 0781:5567 SanDisk Cruzer`
    public var text: String {
        "ID \(Self.hexadecimal(vendor)):\(Self.hexadecimal(product))" + (name.map { " \($0.printable)" } ?? "")
    }

    private static func hexadecimal(_ number: Int) -> String {
        let text = String(number, radix: 16)
        return String(repeating: "0", count: max(0, 4 - text.count)) + text
    }
}

extension Device {
    /// The state as public/io/xenbus.h numbers it, which is what xm printed.
    fileprivate var stateNumber: String {
        XenbusState(headerName: backendState)?.text ?? "?"
    }
}
