// Where a card sits: segment, bus, device and function, and how people and XenStore write that.

/// A function of a device on the host's or a guest's buses.
///
/// Four numbers that pciif.h carries as `domain`, `bus` and `devfn`. "Segment" is the specification's word for what
/// Linux calls a PCI domain; here a domain is a guest.
public struct PCIAddress: Hashable, Comparable, Sendable, CustomStringConvertible {
    public let segment: UInt16
    public let bus: UInt8
    /// Bits 7…3 are the device, bits 2…0 the function: Linux's `devfn`.
    public let deviceFunction: UInt8

    @inlinable
    public init(segment: UInt16 = 0, bus: UInt8, deviceFunction: UInt8) {
        self.segment = segment
        self.bus = bus
        self.deviceFunction = deviceFunction
    }

    /// - Parameters:
    ///   - device: 0 … 31
    ///   - function: 0 … 7
    /// - Returns: nil if either is larger.
    @inlinable
    public init?(segment: UInt16 = 0, bus: UInt8, device: UInt8, function: UInt8) {
        guard device < 32, function < 8 else { return nil }
        self.init(segment: segment, bus: bus, deviceFunction: device &<< 3 | function)
    }

    /// The three numbers of an operation (pciif.h, `struct xen_pci_op`), each of which a frontend may have chosen.
    /// - Returns: nil if one has more bits than an address has.
    @inlinable
    public init?(domain: UInt32, bus: UInt32, devfn: UInt32) {
        guard let segment = UInt16(exactly: domain), let bus = UInt8(exactly: bus), let devfn = UInt8(exactly: devfn)
        else { return nil }
        self.init(segment: segment, bus: bus, deviceFunction: devfn)
    }

    /// 0 … 31
    @inlinable public var device: UInt8 { deviceFunction &>> 3 }
    /// 0 … 7
    @inlinable public var function: UInt8 { deviceFunction & 7 }

    /// Whether both are functions of one device.
    @inlinable
    public func sharesDevice(with other: PCIAddress) -> Bool {
        segment == other.segment && bus == other.bus && device == other.device
    }

    /// Parses `08:05.0` or `0000:08:05.0`: hexadecimal, no wildcard, nothing before or behind.
    public init(parsing text: String) throws(PCITextFault) {
        guard let address = try PCIAddressPattern(parsing: text).address else { throw .wildcard(text) }
        self = address
    }

    /// Parses a `vdev-N` or `dev-N`, whose function may have two digits (`0000:00:00.00`).
    public init(key text: String) throws(PCITextFault) {
        let pattern = try PCIAddressPattern(parsing: text, functionDigits: 2)
        guard let address = pattern.address else { throw .wildcard(text) }
        self = address
    }

    public static func < (left: PCIAddress, right: PCIAddress) -> Bool {
        (left.segment, left.bus, left.deviceFunction) < (right.segment, right.bus, right.deviceFunction)
    }

    /// As the kernel, xl and `dev-N` write it: `0000:08:05.0`.
    public var description: String { "\(place).\(hexadecimal(function, digits: 1))" }

    /// As xen-pciback writes `vdev-N`, with two digits for the function: `0000:00:00.00`. pcifront reads either.
    public var virtualKey: String { "\(place).\(hexadecimal(function, digits: 2))" }

    /// `0000:08:05`
    private var place: String {
        "\(hexadecimal(segment, digits: 4)):\(hexadecimal(bus, digits: 2)):\(hexadecimal(device, digits: 2))"
    }
}

/// An address in which the function, or the device and the function, may be `*`.
public struct PCIAddressPattern: Hashable, Sendable, CustomStringConvertible {
    public let segment: UInt16
    public let bus: UInt8
    /// nil: every device of the bus; `function` is nil too then.
    public let device: UInt8?
    /// nil: every function of the device.
    public let function: UInt8?

    /// The pattern that only `address` matches.
    public init(_ address: PCIAddress) {
        (segment, bus, device, function) = (address.segment, address.bus, address.device, address.function)
    }

    /// Parses `[SSSS:]BB:DD.F`, where `F` or both `DD` and `F` may be `*` (Linux, xen-pciback's `hide`).
    public init(parsing text: String) throws(PCITextFault) {
        try self.init(parsing: text, functionDigits: 1)
    }

    init(parsing text: String, functionDigits: Int) throws(PCITextFault) {
        let colons = text.split(separator: ":" as Character, omittingEmptySubsequences: false)
        guard colons.count == 2 || colons.count == 3 else { throw .form(text) }
        let dots = colons[colons.count - 1].split(separator: "." as Character, omittingEmptySubsequences: false)
        guard dots.count == 2 else { throw .form(text) }
        if colons.count == 3 {
            guard let number = UInt32(hexadecimal: colons[0], digits: 1...8) else { throw .form(text) }
            guard let segment = UInt16(exactly: number) else { throw .segment(text) }
            self.segment = segment
        } else {
            segment = 0
        }
        guard let bus = UInt32(hexadecimal: colons[colons.count - 2], digits: 1...4) else { throw .form(text) }
        guard let bus = UInt8(exactly: bus) else { throw .bus(text) }
        self.bus = bus
        let function: UInt8?
        if dots[1] == "*" {
            function = nil
        } else {
            guard let number = UInt8(hexadecimal: dots[1], digits: 1...functionDigits) else { throw .form(text) }
            guard number < 8 else { throw .function(text) }
            function = number
        }
        self.function = function
        if dots[0] == "*" {
            guard function == nil else { throw .functionOfEveryDevice(text) }
            device = nil
        } else {
            guard let number = UInt8(hexadecimal: dots[0], digits: 1...2) else { throw .form(text) }
            guard number < 32 else { throw .device(text) }
            device = number
        }
    }

    /// The address, if there is no `*`.
    public var address: PCIAddress? {
        guard let device, let function else { return nil }
        return PCIAddress(segment: segment, bus: bus, device: device, function: function)
    }

    public func matches(_ address: PCIAddress) -> Bool {
        segment == address.segment && bus == address.bus && (device ?? address.device) == address.device
            && (function ?? address.function) == address.function
    }

    public var description: String {
        let device = device.map { hexadecimal($0, digits: 2) } ?? "*"
        let function = function.map { hexadecimal($0, digits: 1) } ?? "*"
        return "\(hexadecimal(segment, digits: 4)):\(hexadecimal(bus, digits: 2)):\(device).\(function)"
    }
}

/// What is wrong with an address, a line or a key that a person or a toolstack wrote.
public enum PCITextFault: Error, Hashable, Sendable, CustomStringConvertible {
    case form(String)
    case segment(String)
    case bus(String)
    case device(String)
    case function(String)
    /// `08:*.0`: the kernel's `hide` has no such thing.
    case functionOfEveryDevice(String)
    /// A `*` where one function is meant.
    case wildcard(String)
    case virtualSlot(String)
    /// No such option; the second is the whole line.
    case option(String, line: String)
    /// An option twice.
    case repeated(String, line: String)
    case value(String, of: String, line: String)
    /// Something outside of parentheses in a `hide` list.
    case hideList(String)
    case key(String, value: String?)
    /// Two keys name one card.
    case sameCard(String, String, String)

    public var description: String {
        switch self {
        case .form(let text): "'\(text)' is no PCI address; one looks like 08:05.0 or 0000:08:05.0 (see lspci -D)"
        case .segment(let text): "'\(text)': a PCI domain has four hexadecimal digits at most; Xen knows no others"
        case .bus(let text): "'\(text)': a bus is 00 … ff"
        case .device(let text): "'\(text)': a device is 00 … 1f"
        case .function(let text): "'\(text)': a function is 0 … 7"
        case .functionOfEveryDevice(let text): "'\(text)': where the device is *, the function must be * too"
        case .wildcard(let text): "'\(text)': one function is needed here, not *"
        case .virtualSlot(let text): "'\(text)': a virtual slot is 00 … 1f"
        case .option(let name, let line):
            "'\(line)': there is no option '\(name)'; there are msitranslate, power_mgmt, permissive, seize, "
                + "rdm_policy, vslot, bdf and name"
        case .repeated(let name, let line): "'\(line)': '\(name)' is given twice"
        case .value(let value, let name, let line):
            name == "rdm_policy"
                ? "'\(line)': rdm_policy is strict or relaxed, not '\(value)'"
                : "'\(line)': \(name) is 0 or 1, not '\(value)'"
        case .hideList(let text):
            "'\(text)' is no list of cards to hide; one looks like (08:05.0)(0000:09:00.*)"
        case .key(let name, let value?): "\(name) is '\(value)', which makes no sense"
        case .key(let name, nil): "\(name) is missing"
        case .sameCard(let card, let first, let second): "\(first) and \(second) are both \(card)"
        }
    }
}

extension FixedWidthInteger where Self: UnsignedInteger {
    /// Parses hexadecimal digits strictly: no sign, no `0x`, and as many as allowed.
    init?(hexadecimal text: some StringProtocol, digits: ClosedRange<Int>) {
        guard digits.contains(text.utf8.count),
            text.utf8.allSatisfy({ byte in
                (0x30...0x39).contains(byte) || (0x41...0x46).contains(byte) || (0x61...0x66).contains(byte)
            })
        else { return nil }
        self.init(text, radix: 16)
    }
}

/// At least so many hexadecimal digits.
func hexadecimal(_ number: some BinaryInteger, digits: Int) -> String {
    let text = String(number, radix: 16)
    return String(repeating: "0", count: max(0, digits - text.utf8.count)) + text
}
