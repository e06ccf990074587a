// The policy of configuration spaces, all of it: which registers a guest may read and write, and what that does.

/// What is not in this table is read from the card, and written only if the card is `permissive` (XSA-131).
///
/// The rules are those of Linux's xen-pciback (drivers/xen/xen-pciback/conf_space*.c), so that a guest finds the card
/// it knows; rows marked (+) are stricter. Where two rows cover a byte the first counts: a card whose capabilities lie
/// over its header, or over each other, opens nothing.
public enum PCIRegisterTable {
    public static let rules: [PCIRegisterRule] = header + power + messages + other + extended

    /// The header of a card (PCI 3.0, 6.1). Bridges have another one, and are not given away.
    static let header: [PCIRegisterRule] = [
        PCIRegisterRule(.header(0x00), 2, "vendor ID", .vendor),
        PCIRegisterRule(.header(0x02), 2, "device ID", .product),
        PCIRegisterRule(.header(0x04), 2, "command", .command, .command),
        PCIRegisterRule(.header(0x06), 2, "status", .device, .whenPermissive),
        PCIRegisterRule(.header(0x08), 4, "revision and class", .device, .never),  // (+)
        PCIRegisterRule(.header(0x0C), 1, "cache line size", .device, .device),
        PCIRegisterRule(.header(0x0D), 1, "latency timer", .device, .never),
        PCIRegisterRule(.header(0x0E), 1, "header type", .device, .never),  // (+)
        PCIRegisterRule(.header(0x0F), 1, "BIST", .device, .selfTest),
        PCIRegisterRule(.header(0x10), 4, "base address 0", .baseAddress(0), .baseAddress(0)),
        PCIRegisterRule(.header(0x14), 4, "base address 1", .baseAddress(1), .baseAddress(1)),
        PCIRegisterRule(.header(0x18), 4, "base address 2", .baseAddress(2), .baseAddress(2)),
        PCIRegisterRule(.header(0x1C), 4, "base address 3", .baseAddress(3), .baseAddress(3)),
        PCIRegisterRule(.header(0x20), 4, "base address 4", .baseAddress(4), .baseAddress(4)),
        PCIRegisterRule(.header(0x24), 4, "base address 5", .baseAddress(5), .baseAddress(5)),
        PCIRegisterRule(.header(0x30), 4, "expansion ROM", .rom, .rom),
        PCIRegisterRule(.header(0x34), 1, "capabilities pointer", .device, .never),  // (+)
        PCIRegisterRule(.header(0x3C), 1, "interrupt line", .interruptLine, .never),
        PCIRegisterRule(.header(0x3D), 1, "interrupt pin", .device, .never),
        PCIRegisterRule(.everyCapability(0), 2, "capability header", .device, .never),
    ]

    /// Power management (PCI Power Management 1.2, 3.2). A PME is the bus's, which the guest shares: it cannot be
    /// enabled.
    static let power: [PCIRegisterRule] = [
        PCIRegisterRule(.capability(0x01, 2), 2, "power management capabilities", .deviceWithout(0xF800), .never),
        PCIRegisterRule(.capability(0x01, 4), 2, "power management control", .device, .powerState),
        PCIRegisterRule(.capability(0x01, 6), 1, "power management bridge extensions", .device, .never),
        PCIRegisterRule(.capability(0x01, 7), 1, "power management data", .device, .never),
    ]

    /// MSI (PCI 3.0, 6.8.1) and MSI-X (6.8.2). Address and data are Xen's: with them a card reaches any vector of the
    /// host where interrupts are not remapped. So they stay closed for a permissive card, too (+).
    static let messages: [PCIRegisterRule] = [
        PCIRegisterRule(.capability(0x05, 2), 2, "MSI control", .device, .interruptControl),
        PCIRegisterRule(.capability(0x05, 4), 4, "MSI address", .device, .never),
        PCIRegisterRule(.capability(0x05, 8), 2, "MSI data", when: .messageAddress(bits: 32)),
        PCIRegisterRule(.capability(0x05, 8), 4, "MSI upper address", when: .messageAddress(bits: 64)),
        PCIRegisterRule(.capability(0x05, 12), 2, "MSI data", when: .messageAddress(bits: 64)),
        PCIRegisterRule(.capability(0x05, 12), 4, "MSI mask", when: .messageMasks(addressBits: 32)),
        PCIRegisterRule(.capability(0x05, 16), 4, "MSI pending", when: .messageMasks(addressBits: 32)),
        PCIRegisterRule(.capability(0x05, 16), 4, "MSI mask", when: .messageMasks(addressBits: 64)),
        PCIRegisterRule(.capability(0x05, 20), 4, "MSI pending", when: .messageMasks(addressBits: 64)),
        PCIRegisterRule(.capability(0x11, 2), 2, "MSI-X control", .device, .interruptControl),
        PCIRegisterRule(.capability(0x11, 4), 4, "MSI-X table", .device, .never),
        PCIRegisterRule(.capability(0x11, 8), 4, "MSI-X pending bits", .device, .never),
    ]

    /// Vital product data (PCI 3.0, appendix I), PCI-X 2.0 (7.2), PCI Express (7.8) and Advanced Features (ECN 2006).
    static let other: [PCIRegisterRule] = [
        PCIRegisterRule(.capability(0x03, 2), 2, "VPD address", .device, .vitalProductAddress),
        PCIRegisterRule(.capability(0x03, 4), 4, "VPD data", .device, .never),
        PCIRegisterRule(.capability(0x07, 2), 2, "PCI-X command", .device, .whenPermissive),
        PCIRegisterRule(.capability(0x07, 4), 4, "PCI-X status", .device, .whenPermissive),
        PCIRegisterRule(.capability(0x10, 2), 2, "PCI Express capabilities", .device, .never),
        PCIRegisterRule(.capability(0x10, 4), 4, "device capabilities", .device, .never),
        // A function level reset would leave the card without its addresses, under the host's feet: as with COMMAND,
        // what XSA-120 forbids is not allowed to a permissive card either (+).
        PCIRegisterRule(.capability(0x10, 8), 2, "device control", .device, .whenPermissiveWithout(0x8000)),
        PCIRegisterRule(.capability(0x10, 10), 2, "device status", .device, .whenPermissive),
        PCIRegisterRule(.capability(0x10, 12), 4, "link capabilities", .device, .never),
        PCIRegisterRule(.capability(0x10, 16), 2, "link control", .device, .whenPermissive),
        PCIRegisterRule(.capability(0x10, 18), 2, "link status", .device, .whenPermissive),
        PCIRegisterRule(.capability(0x10, 36), 4, "device capabilities 2", when: .expressVersion2),
        PCIRegisterRule(.capability(0x10, 40), 2, "device control 2", .device, .whenPermissive, when: .expressVersion2),
        PCIRegisterRule(.capability(0x10, 42), 2, "device status 2", .device, .whenPermissive, when: .expressVersion2),
        PCIRegisterRule(.capability(0x10, 44), 4, "link capabilities 2", when: .expressVersion2),
        PCIRegisterRule(.capability(0x10, 48), 2, "link control 2", .device, .whenPermissive, when: .expressVersion2),
        PCIRegisterRule(.capability(0x10, 50), 2, "link status 2", .device, .whenPermissive, when: .expressVersion2),
        PCIRegisterRule(.capability(0x13, 2), 2, "advanced features", .device, .never),  // (+)
        PCIRegisterRule(.capability(0x13, 4), 1, "advanced features control", .device, .never),  // (+)
    ]

    /// Extended capabilities (PCI Express 5.0, 7.7 … 7.9, and their specifications). Those by which a card would reach
    /// around the IOMMU, or change what the host assigned, stay closed for a permissive card, too (+).
    static let extended: [PCIRegisterRule] =
        [
            PCIRegisterRule(.everyExtended(0), 4, "extended capability header", .device, .never),
            PCIRegisterRule(.extended(0x01, 0x04), 4, "uncorrectable error status", .device, .whenPermissive),
            PCIRegisterRule(.extended(0x01, 0x08), 4, "uncorrectable error mask", .device, .whenPermissive),
            PCIRegisterRule(.extended(0x01, 0x0C), 4, "uncorrectable error severity", .device, .whenPermissive),
            PCIRegisterRule(.extended(0x01, 0x10), 4, "correctable error status", .device, .whenPermissive),
            PCIRegisterRule(.extended(0x01, 0x14), 4, "correctable error mask", .device, .whenPermissive),
            PCIRegisterRule(.extended(0x01, 0x18), 4, "error capabilities and control", .device, .whenPermissive),
            PCIRegisterRule(.extended(0x0D, 6), 2, "access control (ACS)", .device, .never),
            PCIRegisterRule(.extended(0x0F, 6), 2, "address translation (ATS) control", .device, .never),
            PCIRegisterRule(.extended(0x10, 8), 2, "SR-IOV control", .device, .never),
            PCIRegisterRule(.extended(0x10, 10), 2, "SR-IOV status", .device, .never),
            PCIRegisterRule(.extended(0x10, 16), 2, "number of virtual functions", .device, .never),
            PCIRegisterRule(.extended(0x10, 32), 4, "SR-IOV system page size", .device, .never),
            PCIRegisterRule(.extended(0x13, 4), 2, "page request (PRI) control", .device, .never),
            PCIRegisterRule(.extended(0x1B, 6), 2, "PASID control", .device, .never),
            PCIRegisterRule(.extended(0x1D, 6), 2, "downstream port containment", .device, .never),
        ]
        + (0..<6).map { PCIRegisterRule(.extended(0x10, 36 + 4 * $0), 4, "base address of virtual functions") }
        + (0..<6).map {
            PCIRegisterRule(.extended(0x15, 8 + 8 * $0), 4, "resizable BAR control", when: .resizable(moreThan: $0))
        }
}
