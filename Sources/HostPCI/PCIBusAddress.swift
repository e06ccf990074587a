// Where a card sits: the kernel's name of it, as in /sys/bus/pci/devices.

/// `0000:08:05.0`: domain, bus, device, function, as the kernel prints them and in no other form.
///
/// The kernel makes up domains beyond ffff for some controllers (VMD); they are listed like all others.
public struct PCIBusAddress: Hashable, Comparable, Sendable, LosslessStringConvertible {
    public let domain: UInt32
    public let bus: UInt8
    /// 0 … 31
    public let device: UInt8
    /// 0 … 7
    public let function: UInt8

    /// Nil unless the text is exactly what `description` prints.
    public init?(_ text: String) {
        let parts = text.utf8.split(separator: UInt8(ascii: ":"), omittingEmptySubsequences: false)
        guard parts.count == 3, parts[0].count >= 4, parts[0].count <= 8, parts[1].count == 2, parts[2].count == 4,
            parts[2].dropFirst(2).first == UInt8(ascii: "."),
            let domain = PCIText.number(parts[0], as: UInt32.self), let bus = PCIText.number(parts[1], as: UInt8.self),
            let device = PCIText.number(parts[2].prefix(2), as: UInt8.self), device < 32,
            let function = PCIText.number(parts[2].suffix(1), as: UInt8.self), function < 8
        else { return nil }
        (self.domain, self.bus, self.device, self.function) = (domain, bus, device, function)
        guard description == text else { return nil }
    }

    /// Whether both are functions of one device.
    public func sharesDevice(with other: PCIBusAddress) -> Bool {
        domain == other.domain && bus == other.bus && device == other.device
    }

    public static func < (left: PCIBusAddress, right: PCIBusAddress) -> Bool {
        (left.domain, left.bus, left.device, left.function) < (right.domain, right.bus, right.device, right.function)
    }

    public var description: String {
        "\(PCIText.hexadecimal(domain, digits: 4)):\(PCIText.hexadecimal(bus, digits: 2)):"
            + "\(PCIText.hexadecimal(device, digits: 2)).\(function)"
    }
}

/// Hexadecimal numbers as sysfs has them.
enum PCIText {
    /// Digits only.
    static func number<N: FixedWidthInteger>(_ text: Substring.UTF8View, as type: N.Type) -> N? {
        var value: N = 0
        guard !text.isEmpty else { return nil }
        for byte in text {
            let digit: N
            switch byte {
            case UInt8(ascii: "0")...UInt8(ascii: "9"): digit = N(byte - UInt8(ascii: "0"))
            case UInt8(ascii: "a")...UInt8(ascii: "f"): digit = N(byte - UInt8(ascii: "a") + 10)
            default: return nil
            }
            let (shifted, overflow) = value.multipliedReportingOverflow(by: 16)
            if overflow { return nil }
            value = shifted | digit
        }
        return value
    }

    /// `0x8086`
    static func prefixed<N: FixedWidthInteger>(_ text: Substring, as type: N.Type) -> N? {
        text.hasPrefix("0x") ? number(text.dropFirst(2).utf8, as: type) : nil
    }

    /// At least so many digits.
    static func hexadecimal(_ number: some BinaryInteger, digits: Int) -> String {
        let text = String(number, radix: 16)
        return String(repeating: "0", count: max(0, digits - text.utf8.count)) + text
    }
}
