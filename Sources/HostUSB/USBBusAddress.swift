// Where a device is plugged in: the kernel's name of it, as in /sys/bus/usb/devices.

/// A bus and the ports on the way to the device: `3-1.5` is port 5 of the hub at port 1 of bus 3.
///
/// The form is that of xend 4.0, `\d{1,2}-\d{1,2}(.\d{1,2}){0,5}`, without leading zeros. It is a place and not a device:
/// what is plugged in there next has the same address.
public struct USBBusAddress: Hashable, Sendable, LosslessStringConvertible {
    /// The bus, 1 … 99.
    public let bus: UInt8
    /// Port numbers from the root hub on, one to six of 1 … 99.
    public let ports: [UInt8]

    /// Nil unless the text is exactly what `description` prints.
    public init?(_ text: String) {
        let halves = text.utf8.split(separator: UInt8(ascii: "-"), omittingEmptySubsequences: false)
        guard halves.count == 2, let bus = USBBusAddress.number(halves[0]) else { return nil }
        let parts = halves[1].split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        let ports = parts.compactMap { USBBusAddress.number($0) }
        guard ports.count == parts.count, ports.count <= 6 else { return nil }
        self.bus = bus
        self.ports = ports
    }

    /// One or two digits, the first of them no zero.
    private static func number(_ digits: Substring.UTF8View) -> UInt8? {
        guard let first = digits.first, first != UInt8(ascii: "0"), digits.count <= 2 else { return nil }
        var value: UInt8 = 0
        for digit in digits {
            guard digit >= UInt8(ascii: "0"), digit <= UInt8(ascii: "9") else { return nil }
            value = value * 10 + (digit - UInt8(ascii: "0"))
        }
        return value
    }

    public var description: String { "\(bus)-" + ports.map { "\($0)" }.joined(separator: ".") }
}

extension USBBusAddress: Comparable {
    public static func < (left: USBBusAddress, right: USBBusAddress) -> Bool {
        left.bus == right.bus ? left.ports.lexicographicallyPrecedes(right.ports) : left.bus < right.bus
    }
}
