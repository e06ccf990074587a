// Which backend directories are PCI buses of ours.

public import BackendCore
public import HostPCI
public import XenWire

/// The PCI buses of guests: all of kind `pci` that the kernel's xen-pciback neither has nor takes by itself.
public struct PCIClass: DeviceClass {
    public let host: any PCIHost
    public let settings: PCISettings
    private let kernel: KernelBackends

    /// - Parameters:
    ///   - host: where the cards are.
    ///   - kernel: whose backends are not ours.
    public init(host: any PCIHost, settings: PCISettings = PCISettings(), kernel: KernelBackends = KernelBackends()) {
        self.host = host
        self.settings = settings
        self.kernel = kernel
    }

    public var kinds: [DeviceKind] { [.pci] }

    /// A new one is the kernel's where the bus offers it to xen-pciback: both would answer its first operation.
    public func owns(_ keys: BackendNodes) -> Bool {
        guard keys.path.kind == .pci else { return false }
        return !kernel.own(keys.path, isNew: keys[BusKeys.state] == XenbusState.initialising.text)
    }

    public func makeBackend(_ path: DevicePath, _ environment: WorkerEnvironment) -> any DeviceBackend {
        PCIBackend(path, environment, host, settings)
    }
}

/// What the administrator decides for all guests.
public struct PCISettings: Hashable, Sendable {
    /// How cards are laid out in guests.
    public var mode: PCIBusMode
    /// Registers that are open beside the table's, by a card's vendor and product.
    public var quirks: [PCIQuirkRule]
    /// Whether a card that failed for good is written to `aerState`, as xen-pciback does: whoever watches it ends the guest.
    public var failsGuestOnError: Bool
    /// How long a card that another owner has is waited for: one that dies needs a moment for its reset.
    public var patience: Duration

    public init(
        mode: PCIBusMode = .virtual,
        quirks: [PCIQuirkRule] = [],
        failsGuestOnError: Bool = false,
        patience: Duration = .seconds(10)
    ) {
        self.mode = mode
        self.quirks = quirks
        self.failsGuestOnError = failsGuestOnError
        self.patience = patience
    }
}

/// A register that is open for all cards of a kind.
public struct PCIQuirkRule: Hashable, Sendable {
    public var vendor: UInt16
    public var product: UInt16
    public var quirk: PCIQuirk

    public init(vendor: UInt16, product: UInt16, _ quirk: PCIQuirk) {
        self.vendor = vendor
        self.product = product
        self.quirk = quirk
    }

    /// Parses `8086:10d3 e0:2:ff`: vendor and product, then register, bytes and bits, all of it hexadecimal.
    public init?(_ text: String) {
        let words = text.split(separator: " ")
        guard words.count == 2, let quirk = try? PCIQuirk(parsing: String(words[1])) else { return nil }
        let halves = words[0].split(separator: ":", omittingEmptySubsequences: false)
        guard halves.count == 2, halves.allSatisfy({ $0.utf8.count == 4 && $0.allSatisfy(\.isHexDigit) }),
            let vendor = UInt16(halves[0], radix: 16), let product = UInt16(halves[1], radix: 16)
        else { return nil }
        self.init(vendor: vendor, product: product, quirk)
    }
}
