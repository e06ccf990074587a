// The configuration space of a simulated card, put together register by register.

internal import Glibc
internal import HostPCI

/// Bytes, and for each which bits a write changes and which a written 1 clears (PCI 3.0, 6; PCI Express, 7).
struct SimulatedSpace {
    var bytes = [UInt8](repeating: 0, count: 4096)
    var writable = [UInt8](repeating: 0, count: 4096)
    var clearing = [UInt8](repeating: 0, count: 4096)
    /// As the kernel lists them.
    var resources: [PCIWindow] = []

    init(_ vendor: UInt16, _ product: UInt16, _ classCode: UInt32) {
        set16(vendor, at: 0)
        set16(product, at: 2)
        // COMMAND: all that a card implements. STATUS: errors clear themselves, and there are capabilities.
        set16(0, at: 4, writable: 0x0547)
        set16(0x0010, at: 6, clearing: 0xF900)
        set32(classCode << 8 | 1, at: 8)
        set8(0, at: 0x0C, writable: 0xFF)
        set8(0, at: 0x0D, writable: 0xF8)
        set8(0x80, at: 0x0F, writable: 0x40)
        set8(UInt8(SimulatedPCICard.Place.powerManagement), at: 0x34)
        set8(11, at: 0x3C, writable: 0xFF)
        set8(1, at: 0x3D)
    }

    mutating func addWindows(_ windows: [SimulatedPCICard.Window]) {
        var index = 0
        for window in windows where index < 6 {
            let offset = 0x10 + 4 * index
            let flags: UInt32 = window.isPorts ? 1 : window.is64Bit ? 0xC : 0
            let mask = 0 &- window.size
            set32(
                UInt32(truncatingIfNeeded: window.address) | flags,
                at: offset,
                writable: UInt32(truncatingIfNeeded: mask)
            )
            // IORESOURCE_IO, IORESOURCE_MEM, IORESOURCE_MEM_64
            let kind: UInt64 = window.isPorts ? 0x100 : window.is64Bit ? 0x10_0200 : 0x200
            resources.append(
                PCIWindow(start: window.address, end: window.address + window.size - 1, flags: kind | UInt64(flags))
            )
            index += 1
            guard window.is64Bit else { continue }
            set32(
                UInt32(truncatingIfNeeded: window.address >> 32),
                at: offset + 4,
                writable: UInt32(truncatingIfNeeded: mask >> 32)
            )
            resources.append(PCIWindow(start: 0, end: 0, flags: 0))
            index += 1
        }
        while resources.count < 7 { resources.append(PCIWindow(start: 0, end: 0, flags: 0)) }
    }

    /// A virtual function has no identity, no BARs and no switch for its memory of its own (SR-IOV 1.1, 3.4.1): all that is its parent's.
    /// What the kernel lists as its windows stays.
    mutating func hardwireAsVirtualFunction() {
        set16(.max, at: 0)
        set16(.max, at: 2)
        set16(0, at: 4, writable: 0x0004)
        for offset in stride(from: 0x10, to: 0x28, by: 4) { set32(0, at: offset) }
        set8(0, at: 0x3D)
    }

    mutating func addCapabilities(hasMSI: Bool, rows: Int) {
        typealias Place = SimulatedPCICard.Place
        // D1 and D2 exist, PME from D0 and D3hot.
        link(1, at: Place.powerManagement, next: hasMSI ? Place.msi : Place.vitalProductData)
        set16(0x4E03, at: Place.powerManagement + 2)
        set16(0, at: Place.powerManagement + 4, writable: 0x1F03, clearing: 0x8000)
        if hasMSI {
            link(5, at: Place.msi, next: Place.vitalProductData)
            set16(0x0180, at: Place.msi + 2, writable: 0x0071)
            set32(0, at: Place.msi + 4, writable: 0xFFFF_FFFC)
            set32(0, at: Place.msi + 8, writable: .max)
            set16(0, at: Place.msi + 12, writable: 0xFFFF)
            set32(0, at: Place.msi + 16, writable: .max)
        }
        link(3, at: Place.vitalProductData, next: rows > 0 ? Place.msix : Place.express)
        set16(0, at: Place.vitalProductData + 2, writable: 0xFFFF)
        set32(0x5650_4431, at: Place.vitalProductData + 4, writable: .max)
        if rows > 0 {
            link(0x11, at: Place.msix, next: Place.express)
            set16(UInt16(rows - 1), at: Place.msix + 2, writable: 0xC000)
            set32(0x0000_2000, at: Place.msix + 4)
            set32(0x0000_3000, at: Place.msix + 8)
        }
        link(0x10, at: Place.express, next: 0)
        set16(0x0002, at: Place.express + 2)
        set32(0x1000_8FC0, at: Place.express + 4)
        set16(0x2810, at: Place.express + 8, writable: 0x7FFF)
        set16(0, at: Place.express + 10, clearing: 0x000F)
        set32(0x0003_5C11, at: Place.express + 12)
        set16(0x0040, at: Place.express + 16, writable: 0x01FB)
        set16(0x1011, at: Place.express + 18)
        set16(0, at: Place.express + 40, writable: 0x001F)
        // Advanced error reporting, the only extended capability.
        set32(0x0001_0001, at: Place.errorReporting)
        set32(0, at: Place.errorReporting + 4, clearing: .max)
        set32(0, at: Place.errorReporting + 8, writable: .max)
        set32(0x0006_2011, at: Place.errorReporting + 12, writable: .max)
        set32(0, at: Place.errorReporting + 16, clearing: .max)
        set32(0x2000, at: Place.errorReporting + 20, writable: .max)
    }

    private mutating func link(_ id: UInt8, at offset: Int, next: Int) {
        set8(id, at: offset)
        set8(UInt8(next), at: offset + 1)
    }

    private mutating func set8(_ value: UInt8, at offset: Int, writable mask: UInt8 = 0, clearing ones: UInt8 = 0) {
        bytes[offset] = value
        writable[offset] = mask
        clearing[offset] = ones
    }

    private mutating func set16(_ value: UInt16, at offset: Int, writable: UInt16 = 0, clearing: UInt16 = 0) {
        for byte in 0..<2 {
            let shift = UInt16(8 * byte)
            set8(
                UInt8(truncatingIfNeeded: value >> shift),
                at: offset + byte,
                writable: UInt8(truncatingIfNeeded: writable >> shift),
                clearing: UInt8(truncatingIfNeeded: clearing >> shift)
            )
        }
    }

    private mutating func set32(_ value: UInt32, at offset: Int, writable: UInt32 = 0, clearing: UInt32 = 0) {
        for half in 0..<2 {
            let shift = UInt32(16 * half)
            set16(
                UInt16(truncatingIfNeeded: value >> shift),
                at: offset + 2 * half,
                writable: UInt16(truncatingIfNeeded: writable >> shift),
                clearing: UInt16(truncatingIfNeeded: clearing >> shift)
            )
        }
    }
}

/// What waits for a host that hangs looks again this often.
func pauseForHost() { usleep(1000) }
