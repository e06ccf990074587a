// A port's assignment in the syntax of xm, xl and QEMU: converted to ours, or refused by name.

internal import ControlProtocol
internal import HostUSB

/// The device of a port as people write it.
///
/// | text | where it is from | |
/// | --- | --- | --- |
/// | `3-1.5` | xm 4.0, `usb-attach` | as it stands |
/// | `0781:5581`, `class=08`, … | ours (``USBDeviceRule``) | as it stands |
/// | `hostbus=3,hostaddr=7` | xl.cfg(5), `usbdev`; xl(1), `usbdev-attach` | the place where that is plugged in now, as libxl writes it |
/// | `host:0781:5581`, `host:3.7` | xl.cfg(5), `usbdevice` | refused |
enum USBPortText {
    /// What to write into `port/N`.
    /// - Throws: `.deviceFailed` for the syntax of other lines, with what to write instead; `USBDeviceRule` checks the
    ///   rest.
    static func resolved(_ text: String, among devices: [USBDeviceFacts]) throws(ControlError) -> String {
        if text.hasPrefix("host:") {
            throw .deviceFailed(
                reason: "'\(text)' is usbdevice= of the device model's emulated USB; a PV port takes a place (1-1) or"
                    + " a rule (0781:5581)"
            )
        }
        guard text.contains("="), ["type", "hostbus", "hostaddr", "controller", "port"].contains(firstKey(of: text))
        else { return text }
        return try place(ofHostDevice: text, among: devices)
    }

    private static func firstKey(of text: String) -> String { String(text.prefix { $0 != "=" }) }

    /// libxl_usb.c, `usbdev_busaddr_to_busid`.
    private static func place(
        ofHostDevice text: String,
        among devices: [USBDeviceFacts]
    ) throws(ControlError) -> String {
        var (bus, number): (UInt8?, UInt8?)
        for part in text.split(separator: ",", omittingEmptySubsequences: false) {
            let halves = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
            switch (halves[0], halves.count == 2 ? halves[1] : "") {
            case ("type", "hostdev"): continue
            case ("hostbus", let value) where UInt8(value) ?? 0 > 0: bus = UInt8(value)
            case ("hostaddr", let value) where UInt8(value) ?? 0 > 0: number = UInt8(value)
            case ("controller", _), ("port", _):
                throw .deviceFailed(
                    reason: "'\(part)': controller and port come before the device here, without their names:"
                        + " xenback usb-attach DOMAIN CONTROLLER PORT hostbus=…,hostaddr=…"
                )
            default: throw .deviceFailed(reason: "'\(part)' in '\(text)' makes no sense; it is hostbus=N,hostaddr=N")
            }
        }
        guard let bus, let number else {
            throw .deviceFailed(reason: "'\(text)' needs both hostbus= and hostaddr= (lsusb shows them)")
        }
        guard let device = devices.first(where: { $0.busNumber == bus && $0.deviceNumber == number }) else {
            throw .deviceFailed(
                reason:
                    "there is no USB device with hostbus=\(bus),hostaddr=\(number); they change each time a device is"
                    + " plugged in: xenback usb-list-assignable-devices shows the places, which do not"
            )
        }
        return "\(device.address)"
    }
}
