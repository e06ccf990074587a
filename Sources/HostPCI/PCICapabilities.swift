// The capabilities of a card, found in a copy of its configuration space.

/// One capability.
public struct PCICapability: Hashable, Sendable {
    /// Of the specification: 1 … 0x14, of an extended one 1 … 0x2F.
    public let id: UInt16
    /// Its first byte: 0x40 … 0xFC, of an extended one 0x100 … 0xFFC.
    public let offset: Int
    /// The 32 bits at `offset`, and those eight bytes further on; 0 beyond what was read.
    public let header: UInt32
    public let control: UInt32

    public init(id: UInt16, offset: Int, header: UInt32, control: UInt32) {
        self.id = id
        self.offset = offset
        self.header = header
        self.control = control
    }

    public var isExtended: Bool { offset >= 0x100 }

    public static let powerManagement: UInt16 = 0x01
    public static let msi: UInt16 = 0x05
    public static let express: UInt16 = 0x10
    public static let msix: UInt16 = 0x11
}

/// A copy of a configuration space: 64 bytes (all that sysfs shows without CAP_SYS_ADMIN), 256 or 4096.
public struct PCIConfigurationBytes: Hashable, Sendable {
    public let bytes: [UInt8]
    public init(_ bytes: [UInt8]) { self.bytes = bytes }

    /// Whether the card still answers: one that is gone reads as all ones, a virtual function's ID does always.
    public var isPresent: Bool { u32(4) != nil && u32(4) != .max }
    /// Bits 0 … 6 of the header's type: 0 is a card, 1 a bridge.
    public var headerType: UInt8? { bytes.count > 0x0E ? bytes[0x0E] & 0x7F : nil }
    /// COMMAND's bit for memory (PCI 3.0, 6.2.2).
    public var decodesMemory: Bool { bytes.count > 4 && bytes[4] & 2 != 0 }
    /// 0 without an interrupt, 1 … 4 for A … D.
    public var interruptPin: UInt8? { bytes.count > 0x3D ? bytes[0x3D] : nil }

    /// Both lists, in their order. Cards write nonsense: a list ends at what it has shown before, and at a place
    /// outside of what was read.
    public var capabilities: [PCICapability] { ordinary + extended }

    private var ordinary: [PCICapability] {
        guard bytes.count > 0x34, bytes[6] & 0x10 != 0 else { return [] }
        var found: [PCICapability] = []
        var seen: Set<Int> = []
        var offset = Int(bytes[0x34] & 0xFC)
        while offset >= 0x40, seen.insert(offset).inserted, let header = u32(offset), header & 0xFF != 0xFF {
            // ID 0 is a null capability: it only leads to the next one (PCI Code and ID Assignment).
            if header & 0xFF != 0 { found.append(capability(UInt16(header & 0xFF), offset, header)) }
            offset = Int(header >> 8 & 0xFC)
        }
        return found
    }

    private var extended: [PCICapability] {
        var found: [PCICapability] = []
        var seen: Set<Int> = []
        var offset = 0x100
        while offset >= 0x100, seen.insert(offset).inserted, let header = u32(offset), header != 0, header != .max {
            let id = UInt16(truncatingIfNeeded: header)
            if id != 0 { found.append(capability(id, offset, header)) }
            offset = Int(header >> 20 & 0xFFC)
        }
        return found
    }

    private func capability(_ id: UInt16, _ offset: Int, _ header: UInt32) -> PCICapability {
        PCICapability(id: id, offset: offset, header: header, control: u32(offset + 8) ?? 0)
    }

    private func u32(_ offset: Int) -> UInt32? {
        guard offset >= 0, offset + 4 <= bytes.count else { return nil }
        return bytes[offset..<offset + 4].reversed().reduce(0) { $0 << 8 | UInt32($1) }
    }
}
