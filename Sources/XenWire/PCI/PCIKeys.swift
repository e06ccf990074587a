// Names of the XenStore keys of PCI, and the list of cards that they make up.

/// Keys of the backend's and the frontend's half, beyond those of `BusKeys` (Linux, drivers/xen/xen-pciback/xenbus.c
/// and drivers/pci/xen-pcifront.c; libxl_pci.c).
public enum PCIKeys {
    // Backend, written by the toolstack.
    /// How many cards: those numbered 0 …< num_devs.
    public static let count = "num_devs"
    /// The card on the host's buses, `0000:08:05.0`.
    public static func device(_ index: Int) -> String { "dev-\(index)" }
    /// The same once more: what `xl pci-detach` looks for.
    public static func key(_ index: Int) -> String { "key-\(index)" }
    /// Where a device model would put it.
    public static func virtualSlot(_ index: Int) -> String { "vdevfn-\(index)" }
    /// `PCIOptions`
    public static func options(_ index: Int) -> String { "opts-\(index)" }
    /// The card's own `XenbusState`: 1 by the toolstack to add it, 5 to remove it, 3 by the backend when it is there.
    public static func state(_ index: Int) -> String { "state-\(index)" }
    /// What the toolstack calls the card.
    public static func name(_ index: Int) -> String { "name-\(index)" }

    // Backend, written by the backend.
    /// Where the guest sees the card, `0000:00:00.00`.
    public static func virtualDevice(_ index: Int) -> String { "vdev-\(index)" }
    /// How many buses the guest is to scan.
    public static let rootCount = "root_num"
    /// One of them, `0000:00`.
    public static func root(_ index: Int) -> String { "root-\(index)" }
    /// `aerfail` asks the toolstack to end the guest.
    public static let errorState = "aerState"

    // Frontend.
    /// The grant of the shared page.
    public static let pageReference = "pci-op-ref"
    /// `PCIWire.magic`
    public static let magic = "magic"
}

/// One card as the toolstack wrote it.
public struct PCIDeviceEntry: Hashable, Sendable {
    /// N of `dev-N`.
    public var index: Int
    public var address: PCIAddress
    public var options: PCIOptions
    public var state: XenbusState
    /// Where the guest sees it, if it has been told.
    public var virtualAddress: PCIAddress?

    public init(
        index: Int,
        address: PCIAddress,
        options: PCIOptions = PCIOptions(),
        state: XenbusState = .initialising,
        virtualAddress: PCIAddress? = nil
    ) {
        self.index = index
        self.address = address
        self.options = options
        self.state = state
        self.virtualAddress = virtualAddress
    }

    /// Cards that one backend may have: a virtual bus has room for no more.
    public static let maxCount = 256

    /// Reads the list.
    /// - Parameter read: the value of a key of the backend's half, nil if there is none.
    public static func list(_ read: (String) -> String?) throws(PCITextFault) -> [PCIDeviceEntry] {
        let text = read(PCIKeys.count)
        guard let count = text.flatMap({ Int(decimal: $0) }), count <= maxCount else {
            throw .key(PCIKeys.count, value: text)
        }
        var entries: [PCIDeviceEntry] = []
        for index in 0..<count {
            guard let device = read(PCIKeys.device(index)) else { throw .key(PCIKeys.device(index), value: nil) }
            let text = read(PCIKeys.state(index))
            // Without a state a card is neither to be added nor to be removed (Linux, `XenbusStateUnknown`).
            guard let state = XenbusState(text: text ?? XenbusState.unknown.text) else {
                throw .key(PCIKeys.state(index), value: text)
            }
            var entry = PCIDeviceEntry(index: index, address: try PCIAddress(key: device), state: state)
            if let options = read(PCIKeys.options(index)) { entry.options = try PCIOptions(key: options) }
            if let place = read(PCIKeys.virtualDevice(index)) { entry.virtualAddress = try PCIAddress(key: place) }
            if let other = entries.first(where: { $0.address == entry.address }) {
                throw .sameCard("\(entry.address)", PCIKeys.device(other.index), PCIKeys.device(index))
            }
            entries.append(entry)
        }
        return entries
    }
}

/// A bus that the guest scans.
public struct PCIRoot: Hashable, Sendable, CustomStringConvertible {
    public var segment: UInt16
    public var bus: UInt8

    public init(segment: UInt16, bus: UInt8) {
        self.segment = segment
        self.bus = bus
    }

    /// Parses a `root-N`.
    public init(key text: String) throws(PCITextFault) {
        let parts = text.split(separator: ":" as Character, omittingEmptySubsequences: false)
        guard parts.count == 2, let segment = UInt16(hexadecimal: parts[0], digits: 1...4),
            let bus = UInt8(hexadecimal: parts[1], digits: 1...2)
        else { throw .key("root", value: text) }
        self.init(segment: segment, bus: bus)
    }

    /// As `root-N` has it: `0000:08`.
    public var description: String { "\(hexadecimal(segment, digits: 4)):\(hexadecimal(bus, digits: 2))" }
}
