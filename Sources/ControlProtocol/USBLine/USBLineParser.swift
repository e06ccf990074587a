// The grammar of a USB controller's line: key=value, separated by commas.

/// Reads one line, key by key.
struct USBLineParser {
    private let line: String
    private var version: USBLine.Version?
    private var portCount: Int?
    private var ports: [USBLine.Port] = []

    init(_ line: String) { self.line = line }

    mutating func parse() throws(DeviceLineError) -> USBLine {
        for part in line.split(separator: ",", omittingEmptySubsequences: false) {
            let part = trimmed(part)
            // xm's own lines sometimes end with a comma.
            if !part.isEmpty { try parse(part) }
        }
        let count = portCount ?? USBLine().portCount
        for port in ports where port.number > count {
            throw error("there is no port \(port.number): the controller has numports=\(count)", at: port.position)
        }
        return USBLine(
            version: version ?? USBLine().version,
            portCount: count,
            ports: ports.filter { !$0.device.isEmpty }.sorted { $0.number < $1.number }
        )
    }

    private mutating func parse(_ part: Substring) throws(DeviceLineError) {
        guard let equals = part.firstIndex(of: "=") else {
            throw error("'\(part)' is no key=value; \(Self.keys)", at: part)
        }
        let (key, value) = (trimmed(part[..<equals]), trimmed(part[part.index(after: equals)...]))
        switch key {
        case "usbver", "version": try setVersion(value, key)
        case "numports", "ports": try setPortCount(value, key)
        case "type": try checkType(value)
        default:
            guard key.hasPrefix("port_") else { throw unknown(key, part) }
            try setPort(key.dropFirst("port_".count), value, part)
        }
    }

    private static let keys =
        "known are usbver, numports, port_1 … port_\(USBLine.portLimit), and xl's type, version, ports"

    /// Keywords of other lines and commands are refused by name, with what to write instead.
    private func unknown(_ key: Substring, _ part: Substring) -> DeviceLineError {
        switch key {
        case "usbctrl", "vusb":
            error("\(key)=[…] belongs in a configuration file; write only what is between its quotes", at: part)
        case "usbdev", "hostbus", "hostaddr", "controller", "port":
            error(
                "\(key)= says which device; this line makes a controller, xenback usb-attach fills its ports",
                at: part
            )
        case "usb", "usbdevice", "usbversion":
            error(
                "\(key)= is for the device model's emulated USB, which xl serves; this line makes a PV controller",
                at: part
            )
        case "backend", "backend-domname":
            error("a controller is served by the domain that xenback runs in: no \(key)=", at: part)
        default: error("unknown key '\(key)'; \(Self.keys)", at: part)
        }
    }

    /// xl's `type=` (xl.cfg(5), `usbctrl`).
    private func checkType(_ value: Substring) throws(DeviceLineError) {
        switch value {
        case "pv", "auto": return
        case "qusb", "devicemodel":
            throw error("type=\(value) is a controller of the device model; xenbackd serves type=pv", at: value)
        case "hostdev":
            throw error(
                "type=hostdev says which device; this line makes a controller, xenback usb-attach fills its ports",
                at: value
            )
        default: throw error("type is pv or auto, not '\(value)'", at: value)
        }
    }

    private mutating func setVersion(_ value: Substring, _ key: Substring) throws(DeviceLineError) {
        if version != nil { throw error("\(key) given twice", at: value) }
        if value == "3" { throw error("\(key)=3: PV controllers are of USB 1.1 or 2.0 (usbif.h)", at: value) }
        guard let number = decimal(value), let new = USBLine.Version(rawValue: number) else {
            throw error("\(key) is 1 (USB 1.1) or 2 (USB 2.0), not '\(value)'", at: value)
        }
        version = new
    }

    private mutating func setPortCount(_ value: Substring, _ key: Substring) throws(DeviceLineError) {
        if portCount != nil { throw error("\(key) given twice", at: value) }
        guard let number = decimal(value), (1...USBLine.portLimit).contains(number) else {
            throw error("\(key) is a number from 1 to \(USBLine.portLimit), not '\(value)'", at: value)
        }
        portCount = number
    }

    private mutating func setPort(
        _ digits: Substring,
        _ value: Substring,
        _ part: Substring
    ) throws(DeviceLineError) {
        guard let number = decimal(digits), (1...USBLine.portLimit).contains(number) else {
            throw error("ports are port_1 … port_\(USBLine.portLimit), not 'port_\(digits)'", at: part)
        }
        if ports.contains(where: { $0.number == number }) { throw error("port_\(number) given twice", at: part) }
        if value.utf8.contains(0) { throw error("a NUL character", at: value) }
        let device = String(value)
        if !device.isEmpty, let other = ports.first(where: { $0.device == device }) {
            throw error("\(device) is in port \(other.number) already", at: value)
        }
        ports.append(USBLine.Port(number: number, device: device, position: position(of: value)))
    }

    // MARK: pieces

    /// Digits without a sign or a leading zero; at most three.
    private func decimal(_ text: Substring) -> Int? {
        guard (1...3).contains(text.utf8.count), text.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else {
            return nil
        }
        return text.count > 1 && text.first == "0" ? nil : Int(text)
    }

    private func trimmed(_ text: Substring) -> Substring {
        func isBlank(_ character: Character) -> Bool { character == " " || character == "\t" || character == "\n" }
        var text = text.drop(while: isBlank)
        while let last = text.last, isBlank(last) { text.removeLast() }
        return text
    }

    private func position(of part: Substring) -> Int {
        line.distance(from: line.startIndex, to: part.startIndex)
    }

    private func error(_ reason: String, at part: Substring) -> DeviceLineError {
        error(reason, at: position(of: part))
    }

    private func error(_ reason: String, at position: Int) -> DeviceLineError {
        DeviceLineError("USB", line: line, reason: reason, position: position)
    }
}
