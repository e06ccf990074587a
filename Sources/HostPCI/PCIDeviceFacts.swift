// What the host knows of a card.

/// A function of a device on the host's buses at one moment.
public struct PCIDeviceFacts: Hashable, Sendable {
    public var address: PCIBusAddress
    /// Of a virtual function the kernel's idea: its own registers say ffff.
    public var vendor: UInt16
    public var product: UInt16
    public var subsystemVendor: UInt16 = 0
    public var subsystemProduct: UInt16 = 0
    /// Base class, subclass and programming interface, 24 bits: 020000 is a network card.
    public var classCode: UInt32
    /// The host's interrupt for the card's pin; 0 without one.
    public var interrupt: UInt32 = 0
    /// BAR 0 … 5, the ROM, and whatever else the kernel lists, in its order.
    public var windows: [PCIWindow] = []
    /// The driver that has it, if one has.
    public var driver: String?
    /// The only driver that may have it, if somebody said so.
    public var driverOverride: String?
    /// The bridges on the way to it, the root's first.
    public var bridges: [PCIBusAddress] = []
    /// The number of its IOMMU group. Under Xen there is none: the IOMMU is Xen's.
    public var group: UInt32?
    /// The firmware's screen.
    public var isBootVGA = false
    /// The card that it is a virtual function of.
    public var physicalFunction: PCIBusAddress?
    /// Virtual functions that there are, in their order.
    public var virtualFunctions: [PCIBusAddress] = []
    /// Most virtual functions; 0 if it can have none.
    public var virtualFunctionLimit: UInt16 = 0

    public init(address: PCIBusAddress, vendor: UInt16, product: UInt16, classCode: UInt32) {
        self.address = address
        self.vendor = vendor
        self.product = product
        self.classCode = classCode
    }

    /// Base class 06. A bridge is never given away: who has it can switch off what is below it.
    public var isBridge: Bool { classCode >> 16 == 0x06 }
    /// VGA and other display controllers.
    public var isDisplay: Bool { classCode >> 16 == 0x03 }
    /// The bus's bridge; nil on a root bus.
    public var bridge: PCIBusAddress? { bridges.last }
}

extension PCIDeviceFacts: CustomStringConvertible {
    /// `0000:08:05.0: ID 8086:10d3 class 0200`
    public var description: String {
        "\(address): ID \(PCIText.hexadecimal(vendor, digits: 4)):\(PCIText.hexadecimal(product, digits: 4)) "
            + "class \(PCIText.hexadecimal(classCode >> 8, digits: 4))"
    }
}

/// A window of a card: one line of sysfs's `resource` (Linux, include/linux/ioport.h). All in 64 bits (XSA-476).
public struct PCIWindow: Hashable, Sendable {
    /// First and last byte; both 0 without a window.
    public var start: UInt64
    public var end: UInt64
    /// `IORESOURCE_*`
    public var flags: UInt64

    public init(start: UInt64, end: UInt64, flags: UInt64) {
        self.start = start
        self.end = end
        self.flags = flags
    }

    /// Parses `0x00000000f7a00000 0x00000000f7a1ffff 0x0000000000040200`.
    init?(_ line: Substring) {
        let words = line.split(separator: " ")
        guard words.count == 3, let start = PCIText.prefixed(words[0], as: UInt64.self),
            let end = PCIText.prefixed(words[1], as: UInt64.self),
            let flags = PCIText.prefixed(words[2], as: UInt64.self)
        else { return nil }
        self.init(start: start, end: end, flags: flags)
    }
}

/// A way to put a card into its initial state (Linux, drivers/pci/pci.c, `pci_reset_fn_methods`).
public struct PCIResetMethod: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    public let rawValue: String
    public init(rawValue: String) { self.rawValue = rawValue }

    /// Of this function alone, by PCI Express.
    public static let functionLevel = PCIResetMethod(rawValue: "flr")
    /// The same for conventional PCI.
    public static let advancedFeatures = PCIResetMethod(rawValue: "af_flr")
    /// To D3hot and back.
    public static let powerManagement = PCIResetMethod(rawValue: "pm")
    /// Of everything on the bus, for which all of it must be one owner's.
    public static let bus = PCIResetMethod(rawValue: "bus")
    /// What the kernel (before 5.15) does not tell.
    public static let unknown = PCIResetMethod(rawValue: "unknown")

    /// Whether other functions are left alone.
    public var isOwnFunctionOnly: Bool { self != .bus && self != .unknown && rawValue != "cxl_bus" }
    public var description: String { rawValue }
}
