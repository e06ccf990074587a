// The policy of configuration spaces, walked byte by byte on a card that takes everything.

import Testing
import XenWire

/// A card whose every register can be written and holds what was written: what is refused here was refused by the
/// policy.
final class OpenCard: PCIConfigurationDevice {
    var bytes: [UInt8]
    var writes: [(value: UInt32, register: PCIRegister)] = []
    var states: [PCIPowerState] = []
    init(_ bytes: [UInt8]) { self.bytes = bytes }

    func read(_ register: PCIRegister) throws(PCIError) -> UInt32 {
        guard register.range.upperBound <= bytes.count else { throw .invalidOffset }
        return bytes[register.range].reversed().reduce(0) { $0 << 8 | UInt32($1) }
    }
    func write(_ value: UInt32, to register: PCIRegister) throws(PCIError) {
        writes.append((value, register))
        for (index, byte) in register.range.enumerated() {
            bytes[byte] = UInt8(truncatingIfNeeded: value >> (8 * index))
        }
    }
    func enter(_ state: PCIPowerState) throws(PCIError) { states.append(state) }
}

/// A card with everything in it, made for these tests.
struct SampleCard {
    static let windows = PCIWindows([
        PCIResource(start: 0xF_E000_0000, end: 0xF_E003_FFFF, flags: 0x14_220C),  // 64 bits, prefetchable, 256 KiB
        .none,
        PCIResource(start: 0xC040, end: 0xC05F, flags: 0x4_0101),  // ports
        PCIResource(start: 0xFEB0_0000, end: 0xFEB0_3FFF, flags: 0x4_0200),  // 32 bits, 16 KiB
        PCIResource(start: 0xFFFF_FFFF_0000_0000, end: 0xFFFF_FFFF_FFFF_FFFF, flags: 0x14_2204),
        .none,
        PCIResource(start: 0xFEA0_0000, end: 0xFEA3_FFFF, flags: 0x4_6200),  // the ROM, off
    ])
    static let facts = PCICardFacts(vendor: 0x8086, product: 0x10D3, interrupt: 0x1_0011, windows: windows)
    static let capabilities = [
        PCICapabilityPlace(id: 0x01, offset: 0x40, header: 0xC823_5001),
        PCICapabilityPlace(id: 0x05, offset: 0x50, header: 0x0180_7005),  // 64 bits and masks
        PCICapabilityPlace(id: 0x03, offset: 0x70, header: 0x0000_7803),
        PCICapabilityPlace(id: 0x07, offset: 0x78, header: 0x0000_8007),
        PCICapabilityPlace(id: 0x10, offset: 0x80, header: 0x0002_C010),
        PCICapabilityPlace(id: 0x11, offset: 0xC0, header: 0x0004_D011),
        PCICapabilityPlace(id: 0x13, offset: 0xD0, header: 0x0306_0013),
        PCICapabilityPlace(id: 0x01, offset: 0x100, header: 0x1402_0001),
        PCICapabilityPlace(id: 0x10, offset: 0x140, header: 0x1801_0010),
        PCICapabilityPlace(id: 0x0F, offset: 0x180, header: 0x1901_000F),
        PCICapabilityPlace(id: 0x15, offset: 0x190, header: 0x0001_0015, control: 0x40),
    ]

    /// Addresses as the host assigned them, COMMAND 0, D0, PME off, MSI off; all else differs from all patterns.
    static var bytes: [UInt8] {
        var bytes = (0..<4096).map { UInt8(truncatingIfNeeded: $0 * 7 + 3) }
        (bytes[4], bytes[5], bytes[0x0F]) = (0, 0, 0x80)
        (bytes[0x42], bytes[0x43], bytes[0x44], bytes[0x45]) = (0x23, 0xCE, 0, 0)
        for (index, address) in [0xE000_000C, 0xF, 0xC041, 0xFEB0_0000, 4, 0xFFFF_FFFF, 0, 0, 0xFEA0_0000].enumerated()
        {
            for byte in 0..<4 where index != 6 && index != 7 {
                bytes[0x10 + 4 * index + byte] = UInt8(truncatingIfNeeded: address >> (8 * byte))
            }
        }
        for capability in capabilities where capability.offset > 0x44 {
            for index in 0..<4 {
                bytes[capability.offset + index] = UInt8(truncatingIfNeeded: capability.header >> (8 * index))
            }
        }
        return bytes
    }

    let card = OpenCard(SampleCard.bytes)
    var space: PCIVirtualConfiguration

    init(permissive: Bool = false, capabilities: [PCICapabilityPlace] = capabilities, quirks: [PCIQuirk] = []) {
        space = PCIVirtualConfiguration(
            SampleCard.facts,
            PCIRegisterMap(capabilities: capabilities, quirks: quirks),
            isPermissive: permissive,
            shadow: PCIShadow(command: 0)
        )
    }

    func read(_ offset: Int32, _ size: Int32) throws -> UInt32 {
        try space.read(#require(PCIRegister(offset: offset, size: size)), of: card)
    }
    @discardableResult
    mutating func write(_ value: UInt32, _ offset: Int32, _ size: Int32) throws -> Int? {
        try space.write(value, to: #require(PCIRegister(offset: offset, size: size)), of: card)
    }
    /// The answer to a write that must not succeed.
    mutating func refusal(_ value: UInt32, _ offset: Int32, _ size: Int32) throws -> PCIError? {
        let register = try #require(PCIRegister(offset: offset, size: size))
        do throws(PCIError) {
            try space.write(value, to: register, of: card)
            return nil
        } catch {
            return error
        }
    }
}

@Suite struct PCIPolicyWalk {
    static let patterns: [UInt32] = [0, .max, 0x5555_5555, 0xAAAA_AAAA]

    /// Bits of the card that a guest can change, by byte: written down here a second time, by hand.
    static let open: [Int: UInt8] = [
        0x04: 0x17, 0x05: 0x00,  // COMMAND: decoding on, master, write and invalidate
        0x0C: 0xFF,  // cache line size
        0x0F: 0x40,  // BIST start
        0x44: 0x00, 0x45: 0x9E,  // PME status and data selection
        0x72: 0xFF, 0x73: 0x7F,  // VPD address, but not the bit that writes
    ]
    /// Bytes that stay closed for a permissive card.
    static let closed: [ClosedRange<Int>] = [
        0x00...0x03, 0x08...0x0B, 0x0D...0x0E, 0x10...0x27, 0x30...0x34, 0x3C...0x3D, 0x40...0x43, 0x46...0x47,
        0x50...0x5D, 0x60...0x67, 0x70...0x71, 0x74...0x79, 0x80...0x87, 0x8C...0x8F, 0xA4...0xA7, 0xAC...0xAF,
        0xC0...0xCB, 0xD0...0xD4, 0x100...0x103, 0x140...0x143, 0x148...0x14B, 0x150...0x151, 0x160...0x17B,
        0x180...0x183, 0x186...0x187, 0x190...0x193, 0x198...0x19B, 0x1A0...0x1A3,
    ]

    /// Bits that change when four patterns are written to every place, in every width, each time into a fresh card.
    private func changed(permissive: Bool) throws -> [UInt8] {
        let fresh = SampleCard(permissive: permissive)
        let before = SampleCard.bytes
        var changed = [UInt8](repeating: 0, count: 4096)
        for size in [1, 2, 4] as [Int32] {
            for offset in stride(from: 0, to: 4096, by: Int(size)) {
                for pattern in PCIPolicyWalk.patterns {
                    var sample = fresh
                    _ = try sample.refusal(pattern, Int32(offset), size)
                    for byte in sample.card.writes.flatMap(\.register.range) {
                        changed[byte] |= before[byte] ^ sample.card.bytes[byte]
                        sample.card.bytes[byte] = before[byte]
                    }
                    sample.card.writes = []
                }
            }
        }
        return changed
    }

    @Test func everyByteIsClosedButThese() throws {
        let changed = try changed(permissive: false)
        for byte in 0..<4096 {
            #expect(changed[byte] & ~(PCIPolicyWalk.open[byte] ?? 0) == 0, "byte \(byte): \(changed[byte])")
        }
        // And the open ones are: the walk does reach the card.
        for byte in [0x04, 0x0C, 0x45, 0x72, 0x73] { #expect(changed[byte] != 0, "byte \(byte)") }
    }

    @Test func permissiveOpensTheRest() throws {
        let changed = try changed(permissive: true)
        let closed = PCIPolicyWalk.closed
        for byte in 0..<4096 where closed.contains(where: { $0.contains(byte) }) {
            #expect(changed[byte] == 0, "byte \(byte): \(changed[byte])")
        }
        #expect(changed[0x04] & 0x40 == 0 && changed[0x05] & ~0x02 == 0)  // parity, SERR#, INTx
        #expect(changed[0x89] & 0x80 == 0 && changed[0x88] != 0)  // no function level reset
        let mediated: Set<Int> = [0x04, 0x05, 0x0F, 0x44, 0x45, 0x52, 0x53, 0x72, 0x73, 0x89, 0xC2, 0xC3]
        for byte in 0..<4096 where !mediated.contains(byte) && !closed.contains(where: { $0.contains(byte) }) {
            #expect(changed[byte] == 0xFF, "byte \(byte): \(changed[byte])")
        }
    }

    /// A register read in parts is the register read at once, whatever lies over it.
    @Test func everyByteReadsAlikeInEveryWidth() throws {
        let sample = SampleCard()
        for offset in stride(from: Int32(0), to: 4096, by: 4) {
            let whole = try sample.read(offset, 4)
            for index in 0..<4 as Range<Int32> {
                #expect(
                    try sample.read(offset + index, 1) == whole >> UInt32(8 * index) & 0xFF,
                    "byte \(offset + index)"
                )
            }
            for index in [0, 2] as [Int32] {
                #expect(try sample.read(offset + index, 2) == whole >> UInt32(8 * index) & 0xFFFF)
            }
            // Outside of rows that change it, it is the card's.
            let emulated = (0..<4).contains { byte in
                switch sample.space.map.row(at: Int(offset) + byte)?.reads {
                case nil, .device?: false
                default: true
                }
            }
            if !emulated { #expect(try whole == sample.card.read(PCIRegister(offset: offset, size: 4)!)) }
        }
    }

    /// One line in the log for what only a permissive card's guest may write, none for the rest.
    @Test func unlistedWritesAreReported() throws {
        for permissive in [false, true] {
            var sample = SampleCard(permissive: permissive)
            #expect(try sample.write(1, 0x48, 4) == 0x48 && sample.write(0, 0x06, 2) == 0x06)
            #expect(try sample.write(1, 0x88, 2) == 0x88 && sample.write(0, 0x88, 4) == 0x8A)
            #expect(try sample.write(1, 0x10, 4) == nil && sample.write(1, 0x0C, 1) == nil)
            // COMMAND and status together: the status is the unlisted one, COMMAND is written all the same.
            #expect(try sample.write(0x0000_0006, 0x04, 4) == 0x06)
            #expect(sample.card.bytes[4] == 0x07)
        }
    }

    /// Where capabilities lie over the header, over each other or over the end, nothing opens and nothing traps.
    @Test func malformedCapabilities() throws {
        var generator = SeededGenerator(seed: 11)
        for _ in 0..<200 {
            let capabilities = (0..<12).map { _ in
                PCICapabilityPlace(
                    id: UInt16.random(in: 0...0x20, using: &generator),
                    offset: Int.random(in: -8...4100, using: &generator),
                    header: .random(in: 0 ... .max, using: &generator),
                    control: .random(in: 0 ... .max, using: &generator)
                )
            }
            let map = PCIRegisterMap(capabilities: capabilities)
            for rule in PCIRegisterTable.rules {
                guard case .header(let offset) = rule.place else { continue }
                #expect(map.row(at: offset)?.name == rule.name)
            }
            for row in map.rows { #expect(row.register.range.allSatisfy { map.row(at: $0) == row }) }
        }
    }
}
