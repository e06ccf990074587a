// The policy laid over one card: which row of the table each byte of its configuration space belongs to.

/// A capability of a card, found by whoever can read it.
public struct PCICapabilityPlace: Hashable, Sendable {
    /// Of the specification: 1 … 0x14 of capabilities, 1 … 0x2F of extended ones.
    public let id: UInt16
    /// Its first byte: 0x40 … 0xFC, of extended ones 0x100 … 0xFFC.
    public let offset: Int
    /// The 32 bits at `offset`, and for MSI its control register is in the upper half; for resizable BARs see
    /// `control`.
    public let header: UInt32
    /// The 32 bits at `offset` + 8, where resizable BARs count themselves.
    public let control: UInt32

    public init(id: UInt16, offset: Int, header: UInt32, control: UInt32 = 0) {
        self.id = id
        self.offset = offset
        self.header = header
        self.control = control
    }

    public var isExtended: Bool { offset >= 0x100 }
}

/// Rows by byte. Made once, when the card is given to a guest.
public struct PCIRegisterMap: Sendable {
    /// A row at its place.
    public struct Row: Hashable, Sendable {
        public let register: PCIRegister
        public let name: String
        public let reads: PCIReadRule
        public let writes: PCIWriteRule
        /// Of a quirk: the bits that may change.
        public let mask: UInt32
    }

    public let rows: [Row]
    /// For each byte the index of its row, -1 without one.
    private let byByte: [Int16]

    /// - Parameters:
    ///   - capabilities: both kinds, in any order.
    ///   - quirks: registers that the administrator opened. They cannot open what the table closes.
    public init(capabilities: [PCICapabilityPlace] = [], quirks: [PCIQuirk] = []) {
        var rows: [Row] = []
        var byByte = [Int16](repeating: -1, count: PCIRegister.spaceSize)
        func add(
            _ offset: Int,
            _ size: Int,
            _ name: String,
            _ reads: PCIReadRule,
            _ writes: PCIWriteRule,
            _ mask: UInt32
        ) {
            guard let register = PCIRegister(offset: Int32(clamping: offset), size: Int32(clamping: size)),
                byByte[register.range].allSatisfy({ $0 < 0 })
            else { return }
            for byte in register.range { byByte[byte] = Int16(rows.count) }
            rows.append(Row(register: register, name: name, reads: reads, writes: writes, mask: mask))
        }
        for rule in PCIRegisterTable.rules {
            for offset in PCIRegisterMap.offsets(of: rule, capabilities) {
                add(offset, rule.size, rule.name, rule.reads, rule.writes, .max)
            }
        }
        for quirk in quirks { add(quirk.register.offset, quirk.register.size, "quirk", .device, .device, quirk.mask) }
        self.rows = rows
        self.byByte = byByte
    }

    /// The row that a byte belongs to.
    /// - Parameter byte: 0 … 4095, ours.
    public func row(at byte: Int) -> Row? {
        let index = byByte[byte]
        return index < 0 ? nil : rows[Int(index)]
    }

    private static func offsets(of rule: PCIRegisterRule, _ capabilities: [PCICapabilityPlace]) -> [Int] {
        switch rule.place {
        case .header(let offset): [offset]
        case .capability(let id, let offset):
            capabilities.filter { !$0.isExtended && $0.id == UInt16(id) && meets(rule.condition, $0) }
                .map { $0.offset + offset }
        case .everyCapability(let offset): capabilities.filter { !$0.isExtended }.map { $0.offset + offset }
        case .extended(let id, let offset):
            capabilities.filter { $0.isExtended && $0.id == id && meets(rule.condition, $0) }
                .map { $0.offset + offset }
        case .everyExtended(let offset): capabilities.filter { $0.isExtended }.map { $0.offset + offset }
        }
    }

    private static func meets(_ condition: PCIRegisterCondition, _ capability: PCICapabilityPlace) -> Bool {
        let control = UInt16(truncatingIfNeeded: capability.header &>> 16)
        let addressBits = control & 0x80 != 0 ? 64 : 32
        switch condition {
        case .always: return true
        case .messageAddress(let bits): return addressBits == bits
        case .messageMasks(let bits): return addressBits == bits && control & 0x100 != 0
        case .expressVersion2: return control & 0xF >= 2
        case .resizable(let count): return capability.control &>> 5 & 7 > UInt32(truncatingIfNeeded: count)
        }
    }
}
