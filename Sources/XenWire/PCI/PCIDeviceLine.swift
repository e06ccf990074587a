// A card in a guest's configuration, `pci=['08:05.0,permissive=1']`, and its options as XenStore holds them.

/// The options of a card that xl's `pci` lines have (xl-pci-configuration(5)) and `opts-N` repeats.
public struct PCIOptions: Hashable, Sendable, CustomStringConvertible {
    /// What Xen does where the host's firmware reserved memory for the card.
    public enum ReservedMemoryPolicy: String, Sendable, CaseIterable {
        /// The guest is not built.
        case strict
        /// It is built, with a warning.
        case relaxed
    }

    /// Configuration registers that nobody vouches for may be written (XSA-131).
    public var permissive = false
    /// For guests with a device model only: MSI stands in for the card's line interrupt.
    public var translatesMSI = false
    /// For guests with a device model only: the guest may put the card to sleep. A PV guest always may.
    public var powerManagement = false
    public var reservedMemory = ReservedMemoryPolicy.relaxed

    public init() {}

    /// Parses an `opts-N`. A name that we do not know is skipped: a later toolstack may write more.
    public init(key text: String) throws(PCITextFault) {
        self.init()
        for part in text.split(separator: "," as Character) {
            let halves = part.split(separator: "=" as Character, maxSplits: 1, omittingEmptySubsequences: false)
            guard halves.count == 2 else { throw .key("opts", value: text) }
            _ = try set(String(halves[0]), to: String(halves[1]), line: text)
        }
    }

    /// - Returns: false if there is no such option.
    mutating func set(_ name: String, to value: String, line: String) throws(PCITextFault) -> Bool {
        switch name {
        case "permissive": permissive = try PCIOptions.flag(value, of: name, line: line)
        case "msitranslate": translatesMSI = try PCIOptions.flag(value, of: name, line: line)
        case "power_mgmt": powerManagement = try PCIOptions.flag(value, of: name, line: line)
        case "rdm_policy":
            guard let policy = ReservedMemoryPolicy(rawValue: value) else {
                throw .value(value, of: name, line: line)
            }
            reservedMemory = policy
        default: return false
        }
        return true
    }

    static func flag(_ value: String, of name: String, line: String) throws(PCITextFault) -> Bool {
        switch value {
        case "0": false
        case "1": true
        default: throw .value(value, of: name, line: line)
        }
    }

    /// As libxl writes `opts-N`.
    public var description: String {
        "msitranslate=\(translatesMSI ? 1 : 0),power_mgmt=\(powerManagement ? 1 : 0),"
            + "permissive=\(permissive ? 1 : 0),rdm_policy=\(reservedMemory.rawValue)"
    }
}

/// One item of `pci=[…]`, as xm and xl take it: `08:05.0`, `08:05.*`, `0000:08:05.0@10,permissive=1`,
/// `bdf=08:05.0,vslot=10`.
public struct PCIDeviceLine: Hashable, Sendable {
    /// What is assigned: one function, or with `.*` all functions of a device.
    public var card: PCIAddressPattern
    /// Where the guest sees it; nil is where there is room. Only guests with a device model have a say.
    public var virtualSlot: UInt8?
    public var options = PCIOptions()
    /// It is taken from another driver of the host, without asking.
    public var seize = false
    /// What an administrator calls it.
    public var name: String?

    public init(parsing line: String) throws(PCITextFault) {
        let parts = line.split(separator: "," as Character, omittingEmptySubsequences: false).map { part in
            String(part.drop { $0 == " " })
        }
        var seen: Set<String> = []
        var card: PCIAddressPattern?
        for (index, part) in parts.enumerated() {
            let halves = part.split(separator: "=" as Character, maxSplits: 1, omittingEmptySubsequences: false)
            guard halves.count == 2 || index == 0 else { throw .option(part, line: line) }
            let name = halves.count == 2 ? String(halves[0]) : "bdf"
            let value = halves.count == 2 ? String(halves[1]) : part
            guard seen.insert(name).inserted else { throw .repeated(name, line: line) }
            switch name {
            case "bdf":
                let at = value.split(separator: "@" as Character, omittingEmptySubsequences: false)
                guard at.count <= 2 else { throw .form(line) }
                let pattern = try PCIAddressPattern(parsing: String(at[0]))
                // `hide` has `08:*.*`; nobody means a whole bus for one guest.
                guard pattern.device != nil else { throw .wildcard(line) }
                card = pattern
                if at.count == 2 {
                    seen.insert("vslot")
                    virtualSlot = try PCIDeviceLine.slot(String(at[1]), line: line)
                }
            case "vslot": virtualSlot = try PCIDeviceLine.slot(value, line: line)
            case "name": self.name = value
            case "seize": seize = try PCIOptions.flag(value, of: name, line: line)
            default:
                guard try options.set(name, to: value, line: line) else {
                    throw .option(name, line: line)
                }
            }
        }
        guard let card else { throw .form(line) }
        self.card = card
    }

    private static func slot(_ text: String, line: String) throws(PCITextFault) -> UInt8 {
        guard let slot = UInt8(hexadecimal: text, digits: 1...2), slot < 32 else { throw .virtualSlot(line) }
        return slot
    }
}
