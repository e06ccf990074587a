// What a guest finds in a BAR, made of what the host assigned.

/// A window of a card as the host's kernel has it: one line of sysfs's `resource` (Linux, include/linux/ioport.h).
///
/// All in 64 bits: a window above 4 GiB that is cut to 32 bits is somebody else's memory (XSA-476).
public struct PCIResource: Hashable, Sendable {
    /// First and last byte.
    public let start: UInt64
    public let end: UInt64
    /// `IORESOURCE_*`; the low bits are those of the BAR.
    public let flags: UInt64

    @inlinable
    public init(start: UInt64, end: UInt64, flags: UInt64) {
        self.start = start
        self.end = end
        self.flags = flags
    }

    /// No window.
    public static let none = PCIResource(start: 0, end: 0, flags: 0)

    /// `IORESOURCE_IO`
    public var isPorts: Bool { flags & 0x100 != 0 }
    /// `IORESOURCE_MEM`
    public var isMemory: Bool { flags & 0x200 != 0 }
    /// `IORESOURCE_MEM_64`: the next BAR holds the upper half.
    public var is64Bit: Bool { flags & 0x10_0000 != 0 }
    /// Whether the card answers there: not `IORESOURCE_DISABLED`, `_UNSET` or `_BUSY`, and not upside down.
    public var isAssigned: Bool { (isPorts || isMemory) && flags & 0xB000_0000 == 0 && end >= start }
    /// Bytes; 0 without a window, and for one of all 2⁶⁴.
    public var byteCount: UInt64 { isAssigned ? (end &- start) &+ 1 : 0 }
}

/// The seven windows of a card: BAR 0 … 5 and the expansion ROM.
public struct PCIWindows: Hashable, Sendable {
    /// Index of the ROM.
    public static let rom = 6
    private let resources: [PCIResource]

    /// - Parameter resources: the lines of `resource` in their order; missing ones are no windows, further ones are
    ///   bridges' and virtual functions'.
    public init(_ resources: [PCIResource]) {
        self.resources = (0...PCIWindows.rom).map { $0 < resources.count ? resources[$0] : .none }
    }

    /// - Parameter index: 0 … 6, ours.
    public subscript(index: Int) -> PCIResource { resources[index] }

    public var hasPorts: Bool { resources[..<PCIWindows.rom].contains { $0.isPorts && $0.isAssigned } }
    public var hasMemory: Bool { resources[..<PCIWindows.rom].contains { $0.isMemory && $0.isAssigned } }

    /// Whether the BAR is the upper half of the one before.
    func isUpperHalf(_ index: Int) -> Bool {
        index > 0 && index < PCIWindows.rom && resources[index - 1].is64Bit && resources[index - 1].isMemory
    }

    /// What the BAR holds.
    func address(_ index: Int) -> UInt32 {
        if isUpperHalf(index) {
            return resources[index - 1].isAssigned ? UInt32(truncatingIfNeeded: resources[index - 1].start &>> 32) : 0
        }
        let resource = resources[index]
        guard resource.isAssigned else { return 0 }
        return UInt32(truncatingIfNeeded: resource.start) | flags(index)
    }

    /// What the BAR reads as after all ones have been written: the bits that the card decodes.
    func size(_ index: Int) -> UInt32 {
        if isUpperHalf(index) {
            guard resources[index - 1].isAssigned else { return 0 }
            return UInt32(truncatingIfNeeded: (0 &- resources[index - 1].byteCount) &>> 32)
        }
        let resource = resources[index]
        guard resource.isAssigned else { return 0 }
        return UInt32(truncatingIfNeeded: 0 &- resource.byteCount) | flags(index)
    }

    /// The bits that say what kind of BAR it is; of a ROM the one that switches it on.
    private func flags(_ index: Int) -> UInt32 {
        let bits = UInt32(truncatingIfNeeded: resources[index].flags)
        if index == PCIWindows.rom { return bits & 1 }
        return resources[index].isPorts ? bits & 0x3 : bits & 0xF
    }

    /// Whether what was written asks for the size: all ones, where the BAR's own flags may be anything.
    func asksForSize(_ value: UInt32, _ index: Int) -> Bool {
        let ignored: UInt32 =
            if index == PCIWindows.rom {
                0x7FF
            } else if isUpperHalf(index) {
                0
            } else {
                resources[index].isPorts ? 0x3 : 0xF
            }
        return value | ignored == .max
    }
}
