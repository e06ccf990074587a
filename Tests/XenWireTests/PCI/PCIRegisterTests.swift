// Registers that are more than open or closed: COMMAND, BARs, the ROM, power states, interrupts, VPD, quirks.

import Testing
import XenWire

@Suite struct PCIRegisterRules {
    @Test func identity() throws {
        // A virtual function's own registers say ffff.
        let sample = SampleCard()
        for byte in 0..<4 { sample.card.bytes[byte] = 0xFF }
        #expect(try sample.read(0, 4) == 0x10D3_8086 && sample.read(0, 2) == 0x8086 && sample.read(3, 1) == 0x10)
        #expect(try sample.read(0x3C, 1) == 0x11)
    }

    /// XSA-120: what decodes goes on decoding.
    @Test func command() throws {
        var sample = SampleCard()
        try sample.write(0x0400, 0x04, 2)
        #expect(sample.card.writes.isEmpty)
        #expect(try sample.read(0x04, 2) == 0x0400)
        // Either kind of decoding switches on what the card has.
        try sample.write(0x0002, 0x04, 2)
        #expect(try sample.card.read(PCIRegister(offset: 4, size: 2)!) == 0x0003 && sample.read(0x04, 2) == 0x0002)
        try sample.write(0x0006, 0x04, 2)
        #expect(sample.card.bytes[4] == 0x07)
        try sample.write(0x0000, 0x04, 2)
        #expect(sample.card.bytes[4] == 0x03)
        #expect(try sample.read(0x04, 2) == 0)
        // Parity and system errors stay the host's.
        try sample.write(0x0540, 0x04, 2)
        #expect(sample.card.bytes[4] == 0x03 && sample.card.bytes[5] == 0)
        #expect(try sample.read(0x04, 2) == 0x0540 && sample.space.shadow.command == 0x0540)
        // Half of it.
        try sample.write(0x04, 0x04, 1)
        #expect(try sample.read(0x04, 2) == 0x0504)
        #expect(sample.card.bytes[4] == 0x07)
        // What the card switched off by itself is seen.
        sample.card.bytes[4] = 0x03
        #expect(try sample.read(0x04, 2) == 0x0500)
    }

    @Test(
        arguments: [
            // register, address, size
            (0x10, 0xE000_000C, 0xFFFC_000C), (0x14, 0x0000_000F, 0xFFFF_FFFF), (0x18, 0x0000_C041, 0xFFFF_FFE1),
            (0x1C, 0xFEB0_0000, 0xFFFF_C000), (0x20, 0x0000_0004, 0x0000_0004), (0x24, 0xFFFF_FFFF, 0xFFFF_FFFF),
            (0x30, 0xFEA0_0000, 0xFFFC_0000),
        ] as [(Int32, UInt32, UInt32)]
    )
    func sizing(_ register: Int32, _ address: UInt32, _ size: UInt32) throws {
        var sample = SampleCard()
        #expect(try sample.read(register, 4) == address)
        try sample.write(.max, register, 4)
        #expect(try sample.read(register, 4) == size)
        try sample.write(address, register, 4)
        #expect(try sample.read(register, 4) == address || register == 0x24)
        // Garbage goes nowhere, and ends the question.
        sample.card.writes = []
        try sample.write(.max, register, 4)
        try sample.write(0x1234_5000, register, 4)
        #expect(try sample.read(register, 4) == address)
        #expect(sample.card.writes.isEmpty)
    }

    /// Linux asks with the flags cleared: ~PCI_ROM_ADDRESS_ENABLE, 0xfffffff0, and for ports 0xfffffffc.
    @Test func sizingWithoutFlags() throws {
        var sample = SampleCard()
        for (register, value) in [(0x30, 0xFFFF_FFFE), (0x10, 0xFFFF_FFF0), (0x18, 0xFFFF_FFFC)] as [(Int32, UInt32)] {
            try sample.write(value, register, 4)
        }
        #expect(sample.space.shadow.sizing == 0b100_0101)
        try sample.write(0xFFFF_FFF0, 0x14, 4)
        #expect(sample.space.shadow.sizing == 0b100_0101)
    }

    /// After a reset by the guest's driver the addresses may be put right, and only those.
    @Test func addressesArePutRight() throws {
        var sample = SampleCard()
        for byte in 0x10..<0x28 { sample.card.bytes[byte] = 0 }
        try sample.write(0xE000_000C, 0x10, 4)
        try sample.write(0xFEB0_4000, 0x1C, 4)
        #expect(sample.card.writes.map(\.value) == [0xE000_000C])
        try sample.write(0xE000_000C, 0x10, 4)
        #expect(sample.card.writes.count == 1)
    }

    /// A window that the host did not assign is none.
    @Test func unassigned() throws {
        let flags: [UInt64] = [0x10_0000_0000 | 0x200 | 0x1000_0000, 0x2000_0200, 0x8000_0200, 0x2200]
        var resources = flags.map { PCIResource(start: 0x1000, end: 0x1FFF, flags: $0) }
        resources[3] = PCIResource(start: 0x1FFF, end: 0x1000, flags: 0x200)
        #expect(resources.allSatisfy { !$0.isAssigned && $0.byteCount == 0 })
        let facts = PCICardFacts(vendor: 1, product: 2, windows: PCIWindows(resources))
        var space = PCIVirtualConfiguration(facts, PCIRegisterMap(), isPermissive: false, shadow: PCIShadow(command: 0))
        let card = OpenCard(SampleCard.bytes)
        for offset in stride(from: Int32(0x10), through: 0x1C, by: 4) {
            let register = PCIRegister(offset: offset, size: 4)!
            #expect(try space.read(register, of: card) == 0)
            try space.write(.max, to: register, of: card)
            #expect(try space.read(register, of: card) == 0)
        }
        try space.write(7, to: PCIRegister(offset: 4, size: 2)!, of: card)
        #expect(card.bytes[4] == 4)
    }

    @Test func shadowOutlivesTheWorker() throws {
        var sample = SampleCard()
        try sample.write(.max, 0x10, 4)
        try sample.write(0x0402, 0x04, 2)
        let successor = PCIVirtualConfiguration(
            SampleCard.facts,
            sample.space.map,
            isPermissive: false,
            shadow: PCIShadow(rawValue: sample.space.shadow.rawValue)
        )
        #expect(try successor.read(PCIRegister(offset: 0x10, size: 4)!, of: sample.card) == 0xFFFC_000C)
        #expect(try successor.read(PCIRegister(offset: 0x04, size: 2)!, of: sample.card) == 0x0402)
    }

    @Test func powerStates() throws {
        var sample = SampleCard()
        #expect(try sample.read(0x42, 2) == 0x0623)  // no PME
        for (value, states, error) in [
            (0x0003, [.d3hot], nil), (0x0000, [], nil), (0x0001, [.d1], nil), (0x0002, [.d2], nil),
        ] as [(UInt32, [PCIPowerState], PCIError?)] {
            sample.card.states = []
            #expect(try sample.refusal(value, 0x44, 2) == error)
            #expect(sample.card.states == states, "\(value)")
        }
        // Deep sleep ends in D0 only, and what the card does not have it does not enter.
        sample.card.bytes[0x44] = 3
        #expect(try sample.refusal(0x0001, 0x44, 2) == .accessDenied)
        sample.card.states = []
        #expect(try sample.refusal(0x0000, 0x44, 2) == nil)
        #expect(sample.card.states == [.d0])
        (sample.card.bytes[0x43], sample.card.bytes[0x44]) = (0xC8, 0)
        #expect(
            try sample.refusal(0x0001, 0x44, 2) == .accessDenied && sample.refusal(0x0002, 0x44, 2) == .accessDenied
        )
        // PME status is written, PME enable is not.
        sample.card.writes = []
        try sample.write(0x8100, 0x44, 2)
        #expect(sample.card.writes.map(\.value) == [0x8000])
    }

    /// XSA-157: interrupts are switched by operations.
    @Test(arguments: [false, true]) func interrupts(_ permissive: Bool) throws {
        var sample = SampleCard(permissive: permissive)
        for register in [0x52, 0xC2] as [Int32] {
            let now = try sample.read(register, 2)
            #expect(
                try sample.refusal(now, register, 2) == nil && sample.refusal(now ^ 1, register, 2) == .accessDenied
            )
            #expect(try sample.refusal(now ^ 0x8000, register, 2) == .accessDenied && sample.read(register, 2) == now)
        }
        #expect(sample.card.writes.isEmpty)
    }

    /// Every layout of MSI is closed, and not a byte of the next capability.
    @Test(
        arguments: [
            (0x0000, 0x5A), (0x0080, 0x5E), (0x0100, 0x64), (0x0180, 0x68),
        ] as [(UInt32, Int)]
    )
    func layoutsOfMSI(_ control: UInt32, _ end: Int) {
        let map = PCIRegisterMap(capabilities: [PCICapabilityPlace(id: 5, offset: 0x50, header: control << 16 | 5)])
        #expect(map.rows.filter { $0.register.offset >= 0x40 }.map(\.register.range.upperBound).max() == end)
    }

    @Test func vitalProductData() throws {
        var sample = SampleCard()
        #expect(try sample.refusal(0x0004, 0x72, 2) == nil && sample.refusal(0x8004, 0x72, 2) == .accessDenied)
        #expect(try sample.read(0x72, 2) == 4)
    }

    @Test func selfTest() throws {
        var sample = SampleCard()
        for (value, written) in [(0x81, false), (0x00, false), (0xC0, true), (0x40, true)] as [(UInt32, Bool)] {
            (sample.card.bytes[0x0F], sample.card.writes) = (0x80, [])
            try sample.write(value, 0x0F, 1)
            #expect(sample.card.writes.isEmpty != written, "\(value)")
        }
    }

    @Test func quirks() throws {
        let quirk = try PCIQuirk(parsing: "e0:2:f0")
        #expect(quirk.register == PCIRegister(offset: 0xE0, size: 2) && quirk.mask == 0xF0)
        var sample = SampleCard(quirks: [quirk, try PCIQuirk(parsing: "10:4:ffffffff")])
        let before = sample.card.bytes[0xE0]
        #expect(try sample.write(.max, 0xE0, 2) == nil)
        #expect(sample.card.bytes[0xE0] == before | 0xF0 && sample.card.bytes[0xE1] == SampleCard.bytes[0xE1])
        try sample.write(0x1000, 0x10, 4)
        #expect(sample.card.bytes[0x10] == SampleCard.bytes[0x10])
        for text in ["", "e0", "e0:2", "e0:3:ff", "e1:2:ff", "1000:1:ff", "e0:2:", "e0:2:ff:0", "-1:1:ff"] {
            #expect(throws: PCITextFault.self) { try PCIQuirk(parsing: text) }
        }
    }

    /// A card that is gone, or has only 256 bytes, says so.
    @Test func theCardsOwnErrors() throws {
        var sample = SampleCard()
        sample.card.bytes = Array(sample.card.bytes.prefix(256))
        #expect(throws: PCIError.invalidOffset) {
            try sample.space.read(PCIRegister(offset: 256, size: 4)!, of: sample.card)
        }
        #expect(try sample.refusal(0, 0x104, 4) == nil)
    }
}
