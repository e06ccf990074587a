// What the host knows about a device without opening it.

/// A device of the host's buses at one moment; two moments of the same place differ in `deviceNumber`.
///
/// Strings come from the device: untrusted text for people, at most 255 characters.
public struct USBDeviceFacts: Hashable, Sendable {
    /// Where it is plugged in.
    public var address: USBBusAddress
    /// `busnum` and `devnum` of sysfs: the names of its node in /dev/bus/usb. A device number is not reused soon.
    public var busNumber: UInt8
    public var deviceNumber: UInt8
    /// idVendor, idProduct and bcdDevice of the device descriptor (USB 2.0, 9.6.1).
    public var vendor: UInt16
    public var product: UInt16
    public var release: UInt16 = 0
    public var manufacturerName: String?
    public var productName: String?
    public var serial: String?
    /// bDeviceClass; 0 if only the interfaces say.
    public var deviceClass: UInt8
    /// bInterfaceClass of the active configuration's interfaces, ascending, each once.
    public var interfaceClasses: [UInt8] = []
    public var speed: USBSpeed
    public var configurationCount: UInt8 = 1
    /// bConfigurationValue of the active configuration; nil while there is none.
    public var activeConfiguration: UInt8? = 1

    /// bDeviceClass of hubs (USB 2.0, 11.23.1).
    public static let hubClass: UInt8 = 0x09
    /// A hub is never given away: what is plugged in below it has its own address.
    public var isHub: Bool { deviceClass == USBDeviceFacts.hubClass }

    public init(
        address: USBBusAddress,
        busNumber: UInt8,
        deviceNumber: UInt8,
        vendor: UInt16,
        product: UInt16,
        deviceClass: UInt8,
        speed: USBSpeed
    ) {
        self.address = address
        self.busNumber = busNumber
        self.deviceNumber = deviceNumber
        self.vendor = vendor
        self.product = product
        self.deviceClass = deviceClass
        self.speed = speed
    }
}

extension USBDeviceFacts: CustomStringConvertible {
    /// `1-1: ID 0781:5581 SanDisk Ultra`, as in the table of `usb-list-assignable-devices`.
    public var description: String {
        let names = [manufacturerName, productName].compactMap { $0 }.map { " " + USBText.printable($0) }
        return "\(address): ID \(USBText.hexadecimal(vendor)):\(USBText.hexadecimal(product))" + names.joined()
    }
}

/// Hexadecimal numbers and untrusted text.
enum USBText {
    /// As many digits as the type has.
    static func hexadecimal(_ number: some FixedWidthInteger & UnsignedInteger) -> String {
        let digits = String(number, radix: 16)
        return String(repeating: "0", count: number.bitWidth / 4 - digits.count) + digits
    }

    /// Exactly `digits` hexadecimal digits, or nil.
    static func number<N: FixedWidthInteger>(_ text: some StringProtocol, as type: N.Type) -> N? {
        guard text.utf8.count == N.bitWidth / 4, text.utf8.allSatisfy({ $0 != UInt8(ascii: "+") }) else { return nil }
        return N(text, radix: 16)
    }

    /// Control characters become '?': a device's strings go to terminals and logs.
    static func printable(_ text: String) -> String {
        String(String.UnicodeScalarView(text.unicodeScalars.map { isPrintable($0) ? $0 : "?" }))
    }

    static func isPrintable(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.properties.generalCategory {
        case .control, .format, .lineSeparator, .paragraphSeparator, .surrogate, .unassigned, .privateUse: false
        default: true
        }
    }
}
