// Which device a port is for: by its place, or by what it is.

public import HostIO

/// What is written into `port/N` and into configurations.
///
/// | text | means |
/// | --- | --- |
/// | `3-1.5` | whatever is plugged in there |
/// | `0781:5581` | that vendor and product (four hexadecimal digits each), wherever it is plugged in |
/// | `class=08` | a device of that class, or with an interface of it (two hexadecimal digits) |
/// | `serial=4C53` | the device with that serial number; the rest of the text, as it stands |
/// | `0781:5581/class=08/serial=4C53` | all of it: terms in this order, each at most once |
///
/// Hubs match no rule.
public struct USBDeviceRule: Hashable, Sendable, CustomStringConvertible {
    enum Term: Hashable, Sendable {
        case place(USBBusAddress)
        case product(vendor: UInt16, product: UInt16)
        case deviceClass(UInt8)
        case serial(String)
    }
    /// One place, or one to three others, in the order of the text.
    let terms: [Term]

    /// The rule of a place.
    public init(_ address: USBBusAddress) { terms = [.place(address)] }

    /// - Throws: `.invalid`, saying which part makes no sense.
    public init(_ text: String) throws(HostFailure) {
        if let address = USBBusAddress(text) {
            terms = [.place(address)]
            return
        }
        var terms: [Term] = []
        var rest = Substring(text)
        repeat {
            if let serial = USBDeviceRule.value(of: "serial=", in: rest) {
                terms.append(.serial(try USBDeviceRule.checked(serial, text)))
                break
            }
            let word = rest.prefix { $0 != "/" }
            terms.append(try USBDeviceRule.term(word, after: terms.last, text))
            rest = rest.dropFirst(word.count)
            if rest.isEmpty { break }
            rest = rest.dropFirst()
        } while true
        self.terms = terms
    }

    private static func term(_ word: Substring, after last: Term?, _ text: String) throws(HostFailure) -> Term {
        if let value = value(of: "class=", in: word), let number = USBText.number(value, as: UInt8.self) {
            if number == USBDeviceFacts.hubClass { throw HostFailure(.invalid, "'\(text)': hubs are not given away") }
            switch last {
            case nil, .product: return .deviceClass(number)
            default: throw HostFailure(.invalid, "'\(text)' names more than one class")
            }
        }
        let halves = word.split(separator: ":", omittingEmptySubsequences: false)
        if halves.count == 2, last == nil, let vendor = USBText.number(halves[0], as: UInt16.self),
            let product = USBText.number(halves[1], as: UInt16.self)
        {
            return .product(vendor: vendor, product: product)
        }
        throw HostFailure(
            .invalid,
            "'\(USBText.printable(text))' is neither a place (1-1, 3-1.5) nor a rule (0781:5581, class=08, "
                + "0781:5581/serial=TEXT); '\(USBText.printable(String(word)))' cannot be understood"
        )
    }

    private static func checked(_ serial: Substring, _ text: String) throws(HostFailure) -> String {
        // A string descriptor holds 126 units of UTF-16 (USB 2.0, 9.6.7).
        if serial.isEmpty || serial.utf16.count > 126 || !serial.unicodeScalars.allSatisfy(USBText.isPrintable) {
            throw HostFailure(.invalid, "'\(USBText.printable(text))': a serial number has 1…126 printable characters")
        }
        return String(serial)
    }

    private static func value(of key: String, in text: Substring) -> Substring? {
        text.hasPrefix(key) ? text.dropFirst(key.count) : nil
    }

    /// The place, if the rule is one.
    public var address: USBBusAddress? {
        if case .place(let address) = terms.first { address } else { nil }
    }

    /// Whether the device is one that the rule is for.
    public func matches(_ facts: USBDeviceFacts) -> Bool {
        !facts.isHub
            && terms.allSatisfy { term in
                switch term {
                case .place(let address): facts.address == address
                case .product(let vendor, let product): facts.vendor == vendor && facts.product == product
                case .deviceClass(let number):
                    facts.deviceClass == number || facts.interfaceClasses.contains(number)
                case .serial(let text): facts.serial == text
                }
            }
    }

    public var description: String {
        terms.map { term in
            switch term {
            case .place(let address): "\(address)"
            case .product(let vendor, let product): "\(USBText.hexadecimal(vendor)):\(USBText.hexadecimal(product))"
            case .deviceClass(let number): "class=\(USBText.hexadecimal(number))"
            case .serial(let text): "serial=\(text)"
            }
        }.joined(separator: "/")
    }
}
