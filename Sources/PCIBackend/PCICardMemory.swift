// What a successor must know of each card: what the guest wrote that the card does not keep, and which interrupts it has.

internal import HostPCI
internal import Hypervisor
internal import XenWire

/// One card as the journal has it.
///
/// Cards are kept one behind the other in the journal's state: address in 4 bytes (segment, bus, devfn), the shadow in 4, the
/// stage, the interrupt mode, the number of mapped interrupts in 2, the header in 64, then for each mapped interrupt the row of
/// the table and the number, 4 bytes each. Numbers are little-endian.
struct PCICardMemory: Hashable, Sendable {
    /// How far a change of interrupts has come.
    enum Stage: UInt8 {
        /// None is under way, or it may be done once more without harm.
        case settled = 0
        /// Interrupts are being mapped: what is mapped so far is undone by a successor.
        case enabling = 1
        /// It is done and perhaps not told: whoever finds the same operation in the page tells its result.
        case enabled = 2
    }
    private enum Mode: UInt8 { case line, message, messages }

    private static let headBytes = 12
    private static let headerBytes = 64
    /// Room for as many cards as a guest can have.
    static let totalBytes = PCIDeviceEntry.maxCount * (headBytes + headerBytes + 8 * PCIWire.maxVectors)

    let address: PCIAddress
    var shadow: PCIShadow
    var stage = Stage.settled
    var interrupts = PCIInterruptMode.line
    var mapped: [PCIVectorMapping] = []
    var header: PCIConfigurationBytes

    init(_ card: PCIGuestCard, _ stage: Stage) {
        address = card.address
        shadow = card.configuration.shadow
        self.stage = stage
        interrupts = card.interrupts
        mapped = card.mapped
        header = card.header
    }

    /// The bytes of several cards.
    static func bytes(of cards: [PCICardMemory]) -> [UInt8] {
        var bytes: [UInt8] = []
        func put32(_ value: UInt32) {
            for shift in 0..<4 { bytes.append(UInt8(truncatingIfNeeded: value >> UInt32(8 * shift))) }
        }
        for card in cards {
            put32(
                UInt32(card.address.segment) | UInt32(card.address.bus) << 16 | UInt32(card.address.deviceFunction)
                    << 24
            )
            put32(card.shadow.rawValue)
            bytes += [card.stage.rawValue, card.mode.rawValue]
            bytes += [UInt8(truncatingIfNeeded: card.mapped.count), UInt8(card.mapped.count >> 8)]
            bytes += card.header.bytes.prefix(headerBytes)
            for mapping in card.mapped {
                put32(UInt32(mapping.entry))
                put32(mapping.interrupt.rawValue)
            }
        }
        return bytes
    }

    private var mode: Mode {
        switch interrupts {
        case .line: .line
        case .message: .message
        case .messages: .messages
        }
    }

    /// Reads what `bytes(of:)` wrote; the rest is left out where it makes no sense.
    static func cards(from bytes: [UInt8]) -> [PCICardMemory] {
        var cards: [PCICardMemory] = []
        var rest = bytes[...]
        while let card = PCICardMemory(&rest) { cards.append(card) }
        return cards
    }

    private init?(_ rest: inout ArraySlice<UInt8>) {
        guard rest.count >= PCICardMemory.headBytes + PCICardMemory.headerBytes else { return nil }
        func take(_ count: Int) -> UInt32 {
            let value = rest.prefix(count).reversed().reduce(0) { $0 << 8 | UInt32($1) }
            rest = rest.dropFirst(count)
            return value
        }
        let segment = UInt16(take(2))
        let bus = UInt8(take(1))
        address = PCIAddress(segment: segment, bus: bus, deviceFunction: UInt8(take(1)))
        shadow = PCIShadow(rawValue: take(4))
        guard let stage = Stage(rawValue: UInt8(take(1))), let mode = Mode(rawValue: UInt8(take(1))) else { return nil }
        self.stage = stage
        let count = Int(take(2))
        header = PCIConfigurationBytes(Array(rest.prefix(PCICardMemory.headerBytes)))
        rest = rest.dropFirst(PCICardMemory.headerBytes)
        guard count <= PCIWire.maxVectors, rest.count >= 8 * count else { return nil }
        for _ in 0..<count {
            let entry = UInt16(truncatingIfNeeded: take(4))
            mapped.append(PCIVectorMapping(entry: entry, interrupt: PhysicalInterrupt(take(4))))
        }
        switch mode {
        case .line: interrupts = .line
        case .message: interrupts = .message(mapped.first?.interrupt.rawValue ?? 0)
        case .messages: interrupts = .messages(PCIVectorMapping.vectors(mapped))
        }
    }
}

extension PCIVectorMapping {
    /// As the guest is told.
    static func vectors(_ mapped: [PCIVectorMapping]) -> [PCIVector] {
        mapped.map { PCIVector(entry: $0.entry, vector: UInt16(truncatingIfNeeded: $0.interrupt.rawValue)) }
    }
}
