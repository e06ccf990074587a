// One row of the policy: a register of a card's configuration space, and what a guest may do with it.

/// Where a register is.
public enum PCIRegisterPlace: Hashable, Sendable {
    /// In the header.
    case header(Int)
    /// So many bytes behind the beginning of a capability (PCI 3.0, appendix H, for the numbers).
    case capability(UInt8, Int)
    /// So many bytes behind the beginning of any capability.
    case everyCapability(Int)
    /// So many bytes behind the beginning of an extended capability (PCI Express, 7.6 ff.).
    case extended(UInt16, Int)
    /// So many bytes behind the beginning of any extended capability.
    case everyExtended(Int)
}

/// A capability whose layout depends on its own first register; a row that does not apply would cover the next one.
public enum PCIRegisterCondition: Hashable, Sendable {
    case always
    /// MSI: bit 7 of its control register is 0, or 1.
    case messageAddress(bits: Int)
    /// MSI: with mask and pending bits (bit 8), and addresses of so many bits.
    case messageMasks(addressBits: Int)
    /// PCI Express: version 2 or later of the capability.
    case expressVersion2
    /// Resizable BARs: more of them than this.
    case resizable(moreThan: Int)
}

/// What a guest reads.
public enum PCIReadRule: Hashable, Sendable {
    /// What the card says.
    case device
    /// What the card says, without these bits.
    case deviceWithout(UInt32)
    /// The host's idea of it: a virtual function does not say.
    case vendor
    case product
    /// The guest's own COMMAND, but for bits that are really switched.
    case command
    /// The host's interrupt number: a PV guest binds it.
    case interruptLine
    /// A BAR: its address as the host assigned it, or after a write of all ones its size.
    case baseAddress(Int)
    case rom
}

/// What becomes of a guest's write.
public enum PCIWriteRule: Hashable, Sendable {
    /// Dropped.
    case never
    /// Dropped, unless the administrator set `permissive`: what a register without a row has, too.
    case whenPermissive
    /// `whenPermissive`, but these bits stay as they are.
    case whenPermissiveWithout(UInt32)
    /// It reaches the card.
    case device
    /// See `PCIVirtualConfiguration.writeCommand`.
    case command
    /// Remembered if it is all ones; otherwise the address may be put right, and only that.
    case baseAddress(Int)
    case rom
    /// BIST may be started; nothing else of it changes.
    case selfTest
    /// The power state, and PME status and the data selection.
    case powerState
    /// A read of vital product data may be started, no write of it.
    case vitalProductAddress
    /// Interrupts are switched by operations, not here (XSA-157): what changes nothing succeeds, all else is refused.
    case interruptControl
}

/// One row.
public struct PCIRegisterRule: Hashable, Sendable {
    public let place: PCIRegisterPlace
    /// Bytes: 1, 2 or 4.
    public let size: Int
    /// The specification's name.
    public let name: String
    public let reads: PCIReadRule
    public let writes: PCIWriteRule
    public let condition: PCIRegisterCondition

    init(
        _ place: PCIRegisterPlace,
        _ size: Int,
        _ name: String,
        _ reads: PCIReadRule = .device,
        _ writes: PCIWriteRule = .never,
        when condition: PCIRegisterCondition = .always
    ) {
        self.place = place
        self.size = size
        self.name = name
        self.reads = reads
        self.writes = writes
        self.condition = condition
    }
}

/// A register that an administrator opens for a card that needs it: xen-pciback's `quirks`, `REG:SIZE:MASK`.
public struct PCIQuirk: Hashable, Sendable {
    public let register: PCIRegister
    /// Bits that the guest may change. xen-pciback reads the mask and does not use it; here it counts.
    public let mask: UInt32

    /// Parses `e0:2:ff`, all of it hexadecimal.
    public init(parsing text: String) throws(PCITextFault) {
        let parts = text.split(separator: ":" as Character, omittingEmptySubsequences: false)
        guard parts.count == 3, let offset = UInt16(hexadecimal: parts[0], digits: 1...3),
            let size = UInt8(hexadecimal: parts[1], digits: 1...1),
            let mask = UInt32(hexadecimal: parts[2], digits: 1...8),
            let register = PCIRegister(offset: Int32(offset), size: Int32(size))
        else { throw .key("a quirk", value: text) }
        self.register = register
        self.mask = mask & register.mask
    }
}
