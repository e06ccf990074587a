// A card's configuration space as its guest finds it: the table carried out, one access at a time.

/// The card itself. Accesses reach it as they are; it does not ask whether they should.
public protocol PCIConfigurationDevice {
    /// - Throws: `.invalidOffset` beyond the space the card has, `.deviceNotFound` if it is gone, `.operationFailed`.
    func read(_ register: PCIRegister) throws(PCIError) -> UInt32
    func write(_ value: UInt32, to register: PCIRegister) throws(PCIError)
    /// Puts the card to sleep or wakes it up, and waits until it has happened. A card that lost its registers on the
    /// way (PCI Power Management 1.2, 5.4.1) has them again.
    func enter(_ state: PCIPowerState) throws(PCIError)
}

/// The lowest two bits of the power management control register.
public enum PCIPowerState: UInt8, Sendable, CaseIterable {
    case d0 = 0
    case d1 = 1
    case d2 = 2
    case d3hot = 3
}

/// What of a configuration space is the guest's own and not the card's. It outlives the worker: a guest that was asking
/// for the size of a BAR must not be given its address.
public struct PCIShadow: RawRepresentable, Hashable, Sendable {
    /// COMMAND as the guest wrote it.
    public var command: UInt16
    /// Bit n: BAR n (6: the ROM) is being asked for its size.
    public var sizing: UInt8

    @inlinable
    public init(command: UInt16, sizing: UInt8 = 0) {
        self.command = command
        self.sizing = sizing
    }

    /// As it is kept in a journal; never fails.
    @inlinable
    public init(rawValue: UInt32) {
        self.init(command: UInt16(truncatingIfNeeded: rawValue), sizing: UInt8(truncatingIfNeeded: rawValue &>> 16))
    }
    @inlinable public var rawValue: UInt32 { UInt32(command) | UInt32(sizing) &<< 16 }
}

/// What is known of a card and does not change while a guest has it.
public struct PCICardFacts: Hashable, Sendable {
    public var vendor: UInt16
    public var product: UInt16
    /// The host's interrupt for the card's pin; 0 without one.
    public var interrupt: UInt32
    public var windows: PCIWindows

    public init(vendor: UInt16, product: UInt16, interrupt: UInt32 = 0, windows: PCIWindows = PCIWindows([])) {
        self.vendor = vendor
        self.product = product
        self.interrupt = interrupt
        self.windows = windows
    }
}

/// COMMAND (PCI 3.0, 6.2.2).
enum PCICommandBits {
    static let ports: UInt16 = 0x0001
    static let memory: UInt16 = 0x0002
    static let master: UInt16 = 0x0004
    static let invalidate: UInt16 = 0x0010
    /// Special cycles, palette snooping, address stepping, fast back-to-back: harmless, and a permissive card's
    /// guest's.
    static let harmless: UInt16 = 0x02A8
    /// Bits whose state in the card the guest sees.
    static let real: UInt16 = master | invalidate | harmless
}

/// One card and one guest.
public struct PCIVirtualConfiguration: Sendable {
    public let facts: PCICardFacts
    public let map: PCIRegisterMap
    /// Whether bytes without a row may be written.
    public let isPermissive: Bool
    /// To be kept wherever the next worker finds it.
    public private(set) var shadow: PCIShadow

    /// - Parameter shadow: the last worker's; of a new guest, COMMAND as the card has it and nothing else.
    public init(_ facts: PCICardFacts, _ map: PCIRegisterMap, isPermissive: Bool, shadow: PCIShadow) {
        self.facts = facts
        self.map = map
        self.isPermissive = isPermissive
        self.shadow = shadow
    }

    /// What the guest reads.
    public func read(_ register: PCIRegister, of device: some PCIConfigurationDevice) throws(PCIError) -> UInt32 {
        var value = try device.read(register)
        var byte = register.offset
        while byte < register.range.upperBound {
            guard let row = map.row(at: byte) else {
                byte += 1
                continue
            }
            let part = try read(row, of: device)
            for covered in row.register.range.clamped(to: register.range) {
                value = PCIVirtualConfiguration.replace(covered, of: register, in: value, by: part, of: row.register)
            }
            byte = row.register.range.upperBound
        }
        return value
    }

    /// Carries out a guest's write, as far as it may go.
    /// - Returns: a byte that only a permissive card's guest may write, if there was one: it was written or dropped as
    ///   `isPermissive` says, and is worth one line in the log.
    /// - Throws: `.accessDenied` where a row refuses, or what the card says. A part of the write may have happened.
    @discardableResult
    public mutating func write(
        _ value: UInt32,
        to register: PCIRegister,
        of device: some PCIConfigurationDevice
    ) throws(PCIError) -> Int? {
        let unlisted = register.range.filter { map.row(at: $0).map { $0.writes == .whenPermissive } ?? true }
        let stricter = register.range.first { byte in
            if case .whenPermissiveWithout? = map.row(at: byte)?.writes { true } else { false }
        }
        var byte = register.offset
        while byte < register.range.upperBound {
            guard let row = map.row(at: byte) else {
                byte += 1
                continue
            }
            byte = row.register.range.upperBound
            if case .whenPermissive = row.writes { continue }
            var merged = try read(row, of: device)
            for covered in row.register.range.clamped(to: register.range) {
                merged = PCIVirtualConfiguration.replace(covered, of: row.register, in: merged, by: value, of: register)
            }
            try write(merged, to: row, of: device)
        }
        if isPermissive, !unlisted.isEmpty { try writeUnlisted(value, unlisted, of: register, device) }
        return unlisted.first ?? stricter
    }

    /// As one access where nothing else is in the way: some cards take only whole registers.
    private func writeUnlisted(
        _ value: UInt32,
        _ bytes: [Int],
        of register: PCIRegister,
        _ device: some PCIConfigurationDevice
    ) throws(PCIError) {
        if bytes.count == register.size { return try device.write(value & register.mask, to: register) }
        for byte in bytes {
            let part = value &>> UInt32(8 &* (byte &- register.offset)) & 0xFF
            try device.write(part, to: PCIRegister(unchecked: byte, size: 1))
        }
    }

    private func read(_ row: PCIRegisterMap.Row, of device: some PCIConfigurationDevice) throws(PCIError) -> UInt32 {
        switch row.reads {
        case .device: return try device.read(row.register)
        case .deviceWithout(let bits): return try device.read(row.register) & ~bits
        case .vendor: return UInt32(facts.vendor)
        case .product: return UInt32(facts.product)
        case .command:
            let real = UInt16(truncatingIfNeeded: try device.read(row.register))
            return UInt32(real & PCICommandBits.real | shadow.command & ~PCICommandBits.real)
        case .interruptLine: return facts.interrupt & 0xFF
        case .baseAddress(let index): return window(index)
        case .rom: return window(PCIWindows.rom)
        }
    }

    private func window(_ index: Int) -> UInt32 {
        shadow.sizing & 1 &<< UInt8(index) != 0 ? facts.windows.size(index) : facts.windows.address(index)
    }

    /// Byte `byte` of the configuration space, taken from a value of register `source`, put into one of register
    /// `target`.
    private static func replace(
        _ byte: Int,
        of target: PCIRegister,
        in value: UInt32,
        by part: UInt32,
        of source: PCIRegister
    ) -> UInt32 {
        let into = UInt32(8 &* (byte &- target.offset))
        let from = UInt32(8 &* (byte &- source.offset))
        return value & ~(0xFF &<< into) | (part &>> from & 0xFF) &<< into
    }

    private mutating func write(
        _ value: UInt32,
        to row: PCIRegisterMap.Row,
        of device: some PCIConfigurationDevice
    ) throws(PCIError) {
        switch row.writes {
        case .never, .whenPermissive: return
        case .whenPermissiveWithout(let bits):
            guard isPermissive else { return }
            let old = try device.read(row.register)
            try device.write(value & ~bits | old & bits, to: row.register)
        case .device:
            let old = row.mask == .max ? 0 : try device.read(row.register)
            try device.write(value & row.mask | old & ~row.mask, to: row.register)
        case .command: try writeCommand(UInt16(truncatingIfNeeded: value), row.register, device)
        case .baseAddress(let index): try writeWindow(value, index, row.register, device)
        case .rom: try writeWindow(value, PCIWindows.rom, row.register, device)
        case .selfTest:
            let old = try device.read(row.register)
            let start: UInt32 = 0x40
            if value == start || value & ~start == old & ~start { try device.write(value, to: row.register) }
        case .powerState: try writePower(value, row.register, device)
        case .vitalProductAddress:
            // Bit 15 set: the data register is written into the card's memory.
            guard value & 0x8000 == 0 else { throw .accessDenied }
            try device.write(value, to: row.register)
        case .interruptControl:
            guard try device.read(row.register) == value else { throw .accessDenied }
        }
    }

    /// Decoding is switched on when the guest asks for any, and then stays on: an access to a card that does not answer
    /// can be a fatal error of the host (XSA-120). Bus mastering and memory write and invalidate follow the guest. The
    /// interrupt is switched off by MSI, parity and system errors are the host's; of these the guest has a shadow.
    private mutating func writeCommand(
        _ value: UInt16,
        _ register: PCIRegister,
        _ device: some PCIConfigurationDevice
    ) throws(PCIError) {
        let old = UInt16(truncatingIfNeeded: try device.read(register))
        let follows = PCICommandBits.master | PCICommandBits.invalidate | (isPermissive ? PCICommandBits.harmless : 0)
        var new = old & ~follows | value & follows
        if value & (PCICommandBits.ports | PCICommandBits.memory) != 0 {
            if facts.windows.hasPorts { new |= PCICommandBits.ports }
            if facts.windows.hasMemory { new |= PCICommandBits.memory }
        }
        if new != old { try device.write(UInt32(new), to: register) }
        shadow.command = value
    }

    private mutating func writeWindow(
        _ value: UInt32,
        _ index: Int,
        _ register: PCIRegister,
        _ device: some PCIConfigurationDevice
    ) throws(PCIError) {
        if facts.windows.asksForSize(value, index) {
            shadow.sizing |= 1 &<< UInt8(index)
            return
        }
        // A guest that reset its card writes the addresses again. Nothing but the host's own address gets there.
        if value == facts.windows.address(index), try device.read(register) != value {
            try device.write(value, to: register)
        }
        shadow.sizing &= ~(1 &<< UInt8(index))
    }

    /// PME status (written as 1 it is cleared) and the data selection are the guest's; PME itself is the bus's.
    private func writePower(
        _ value: UInt32,
        _ register: PCIRegister,
        _ device: some PCIConfigurationDevice
    ) throws(PCIError) {
        let open: UInt32 = 0x9E00
        let old = try device.read(register)
        if old & open != value & open { try device.write(old & ~open | value & open, to: register) }
        let current = PCIPowerState(rawValue: UInt8(old & 3)) ?? .d0
        guard let wanted = PCIPowerState(rawValue: UInt8(value & 3)), wanted != current else { return }
        // From a deeper sleep there is only the way to D0 (PCI Power Management 1.2, 5.6), and D1 and D2 exist where
        // the capabilities, two bytes before, say so.
        guard wanted == .d0 || wanted.rawValue > current.rawValue else { throw .accessDenied }
        if wanted == .d1 || wanted == .d2 {
            let capabilities = try device.read(PCIRegister(unchecked: register.offset - 2, size: 2))
            guard capabilities & (wanted == .d1 ? 0x200 : 0x400) != 0 else { throw .accessDenied }
        }
        try device.enter(wanted)
    }
}
