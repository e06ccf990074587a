// One card of one guest: the card itself, its configuration space as the guest has it, and how it interrupts.

internal import BackendCore
internal import HostPCI
internal import Hypervisor
internal import XenWire

/// A card that was taken for a guest.
struct PCIGuestCard: Sendable {
    /// On the host's buses.
    let address: PCIAddress
    let options: PCIOptions
    let card: any OpenPCICard
    let layout: PCIInterruptLayout
    var configuration: PCIVirtualConfiguration
    /// The header before any guest's: what is restored.
    var header: PCIConfigurationBytes
    var interrupts = PCIInterruptMode.line
    /// What the hypervisor has mapped; during a change, the part that is done.
    var mapped: [PCIVectorMapping] = []
    /// Bytes of which an unlisted write was logged already.
    var told: Set<Int> = []

    init(_ address: PCIAddress, _ options: PCIOptions, _ card: any OpenPCICard, _ settings: PCISettings) {
        self.address = address
        self.options = options
        self.card = card
        let facts = card.facts
        let capabilities = card.original.capabilities
        let quirks = settings.quirks.filter { $0.vendor == facts.vendor && $0.product == facts.product }
        let map = PCIRegisterMap(
            capabilities: capabilities.map {
                PCICapabilityPlace(id: $0.id, offset: $0.offset, header: $0.header, control: $0.control)
            },
            quirks: quirks.map(\.quirk)
        )
        let windows = facts.windows.map { PCIResource(start: $0.start, end: $0.end, flags: $0.flags) }
        configuration = PCIVirtualConfiguration(
            PCICardFacts(
                vendor: facts.vendor,
                product: facts.product,
                interrupt: facts.interrupt,
                windows: PCIWindows(windows)
            ),
            map,
            isPermissive: options.permissive,
            shadow: PCIShadow(command: PCIGuestCard.command(card.original))
        )
        header = PCIConfigurationBytes(Array(card.original.bytes.prefix(64)))
        layout = PCIInterruptLayout(card.original, windows)
    }

    private static func command(_ bytes: PCIConfigurationBytes) -> UInt16 {
        UInt16(bytes.bytes[4]) | UInt16(bytes.bytes[5]) << 8
    }

    /// The guest's view begins anew, as for a driver that has never seen the card.
    mutating func forgetGuest() {
        configuration = PCIVirtualConfiguration(
            configuration.facts,
            configuration.map,
            isPermissive: configuration.isPermissive,
            shadow: PCIShadow(command: PCIGuestCard.command(header))
        )
        told = []
    }

    /// What a predecessor knew of it.
    mutating func restore(_ memory: PCICardMemory) {
        configuration = PCIVirtualConfiguration(
            configuration.facts,
            configuration.map,
            isPermissive: configuration.isPermissive,
            shadow: memory.shadow
        )
        header = memory.header
        interrupts = memory.interrupts
        mapped = memory.mapped
    }

    /// How it interrupts, for people.
    var interruptText: String {
        switch interrupts {
        case .line: configuration.facts.interrupt == 0 ? "nothing" : "line \(configuration.facts.interrupt)"
        case .message: "MSI"
        case .messages(let vectors): "MSI-X (\(vectors.count))"
        }
    }
}

/// An interrupt that the guest has: the row of the table, 0 for MSI.
struct PCIVectorMapping: Hashable, Sendable {
    let entry: UInt16
    let interrupt: PhysicalInterrupt
}

/// Where a card's interrupt registers are.
struct PCIInterruptLayout: Hashable, Sendable {
    /// First bytes of the capabilities.
    let msi: Int?
    let msix: Int?
    /// Rows of the table; nil without one.
    let rows: Int?
    /// The host's address of the window that the table is in; nil if it has none.
    let tableBase: UInt64?

    init(_ space: PCIConfigurationBytes, _ windows: [PCIResource]) {
        let capabilities = space.capabilities.filter { !$0.isExtended }
        msi = capabilities.first { $0.id == PCICapability.msi }?.offset
        guard let table = capabilities.first(where: { $0.id == PCICapability.msix }),
            table.offset + 12 <= min(256, space.bytes.count)
        else {
            (msix, rows, tableBase) = (nil, nil, nil)
            return
        }
        msix = table.offset
        rows = Int(table.header >> 16 & 0x7FF) + 1
        // The lowest three bits of the second register: which BAR (PCI 3.0, 6.8.2.4).
        let bytes = space.bytes
        let index = Int(bytes[table.offset + 4] & 7)
        let window = index < 6 && index < windows.count ? windows[index] : .none
        tableBase = window.isMemory && window.isAssigned && window.start != 0 ? window.start : nil
    }
}
