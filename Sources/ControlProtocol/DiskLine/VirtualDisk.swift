// A disk's name in the guest and its number in XenStore, converted into each other.

/// A virtual disk as xen-vbd-interface(7) names and numbers it: `xvda` is 51712.
public struct VirtualDisk: Hashable, Sendable {
    /// The device's number in XenStore: the last part of `backend/vbd/7/51712`.
    public let number: UInt32

    /// - Returns: nil for numbers that are "reserved for future use" (2 << 28 and up).
    public init?(number: UInt32) {
        guard number < 2 << 28 else { return nil }
        self.number = number
    }

    /// Reads `xvda`, `xvda1`, `sdb3`, `hdc2`, `d0`, `d0p1`, or a number (decimal, 0x hexadecimal, 0 octal).
    ///
    /// - Returns: nil if it is not a name, or the numbering has no room for that disk or partition.
    public init?(_ text: some StringProtocol) {
        if let number = Self.number(Substring(text)) {
            self.init(number: number)
        } else if let name = Name(Substring(text)), let number = name.number {
            self.init(number: number)
        } else {
            return nil
        }
    }

    /// The name in the guest where there is one, else the number: `xvda`, `hdc`, `51999`.
    public var name: String { Name(number: number)?.text ?? String(number) }

    private static func number(_ text: Substring) -> UInt32? {
        guard let first = text.utf8.first, first >= 0x30, first <= 0x39 else { return nil }
        if text.hasPrefix("0x") || text.hasPrefix("0X") {
            // `radix:` accepts a sign, but a disk number has none.
            let digits = text.dropFirst(2)
            return digits.first == "+" || digits.first == "-" ? nil : UInt32(digits, radix: 16)
        }
        return UInt32(text, radix: text.count > 1 && first == 0x30 ? 8 : 10)
    }
}

/// The parts of a name: disk and partition numbers.
private struct Name {
    enum Bus: String { case xvd, sd, hd }

    var bus: Bus
    /// 0 for `a`, 26 for `aa`.
    var disk: UInt32
    /// 0 for the whole disk.
    var partition: UInt32

    init(bus: Bus, disk: UInt32, partition: UInt32) {
        self.bus = bus
        self.disk = disk
        self.partition = partition
    }

    init?(_ text: Substring) {
        if let bus = [Bus.xvd, .sd, .hd].first(where: { text.hasPrefix($0.rawValue) }) {
            let rest = text.dropFirst(bus.rawValue.count)
            let letters = rest.prefix { $0 >= "a" && $0 <= "z" && $0.isASCII }
            guard !letters.isEmpty, letters.utf8.count <= 5 else { return nil }
            let disk = letters.utf8.reduce(0) { (sum: UInt32, letter) in sum * 26 + UInt32(letter - 0x60) } - 1
            guard let partition = Self.decimal(rest.dropFirst(letters.count), ifEmpty: 0) else { return nil }
            guard rest.count == letters.count || partition > 0 else { return nil }
            self.init(bus: bus, disk: disk, partition: partition)
        } else if text.hasPrefix("d") {
            let parts = text.dropFirst().split(separator: "p", maxSplits: 1, omittingEmptySubsequences: false)
            guard let disk = Self.decimal(parts[0], ifEmpty: nil) else { return nil }
            guard parts.count == 1 || !parts[1].isEmpty else { return nil }
            guard let partition = parts.count == 1 ? 0 : Self.decimal(parts[1], ifEmpty: nil) else { return nil }
            self.init(bus: .xvd, disk: disk, partition: partition)
        } else {
            return nil
        }
    }

    /// xen-vbd-interface(7), "Concrete encoding in the VBD interface".
    init?(number: UInt32) {
        switch number >> 8 {
        case (1 << 20)...: self.init(bus: .xvd, disk: number >> 8 & 0xF_FFFF, partition: number & 0xFF)
        case 202: self.init(bus: .xvd, disk: number >> 4 & 15, partition: number & 15)
        case 8: self.init(bus: .sd, disk: number >> 4 & 15, partition: number & 15)
        case 3: self.init(bus: .hd, disk: number >> 6 & 3, partition: number & 63)
        case 22: self.init(bus: .hd, disk: (number >> 6 & 3) + 2, partition: number & 63)
        default: return nil
        }
        // Only numbers that the encoding produces: hd has two disks per major, and small xvd disks never use 1 << 28.
        guard self.number == number else { return nil }
    }

    var number: UInt32? {
        switch bus {
        case .xvd where disk < 16 && partition < 16: 202 << 8 | disk << 4 | partition
        case .xvd where disk < 1 << 20 && partition < 256: 1 << 28 | disk << 8 | partition
        case .sd where disk < 16 && partition < 16: 8 << 8 | disk << 4 | partition
        case .hd where disk < 2 && partition < 64: 3 << 8 | disk << 6 | partition
        case .hd where disk < 4 && partition < 64: 22 << 8 | (disk - 2) << 6 | partition
        default: nil
        }
    }

    var text: String {
        var letters: [UInt8] = []
        var rest = disk + 1
        while rest > 0 {
            letters.append(UInt8((rest - 1) % 26) + 0x61)
            rest = (rest - 1) / 26
        }
        let name = bus.rawValue + String(decoding: letters.reversed(), as: UTF8.self)
        return partition == 0 ? name : name + String(partition)
    }

    /// Digits without a leading zero, of at most seven places.
    private static func decimal(_ text: Substring, ifEmpty: UInt32?) -> UInt32? {
        if text.isEmpty { return ifEmpty }
        guard text.utf8.count <= 7, text.utf8.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }) else { return nil }
        guard text == "0" || text.first != "0" else { return nil }
        return UInt32(text)
    }
}
