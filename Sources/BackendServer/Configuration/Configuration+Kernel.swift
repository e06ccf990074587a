// Settings about PCI cards and about the kernel's own backends.

public import PCIBackend
public import XenWire

extension Configuration {
    /// `[pci]`
    public struct PCI: Equatable, Sendable {
        /// Whether guests' cards (devices of kind `pci`) are served by xenback, where the kernel does not take them.
        public var pci = true
        /// Cards that no driver of the host gets: `08:05.0`, `0000:08:05.*`, `08:*.*`. Read when they are hidden: what
        /// makes no sense is a warning then, and keeps nothing from starting.
        public var hide: [String] = []
        /// How cards are laid out in guests.
        public var layout = PCIBusMode.virtual
        /// Registers that guests may write beside the policy's: `8086:10d3 e0:2:ff` (vendor, product; register, bytes,
        /// bits).
        public var quirks: [PCIQuirkRule] = []
        /// Whether a card that failed for good is told to whoever ends guests for it (`aerState`).
        public var failGuestOnError = false

        public init() {}

        /// As the device class takes them.
        var settings: PCISettings {
            PCISettings(mode: layout, quirks: quirks, failsGuestOnError: failGuestOnError)
        }
    }

    /// `[kernel]`
    public struct Kernel: Equatable, Sendable {
        /// Kinds of devices of which those that are not ours are given to the kernel's drivers, one by one.
        public var bind: [Kind] = []
        public var autoprobe = Autoprobe.leave

        public init() {}

        var kinds: Set<DeviceKind> { Set(bind.compactMap { DeviceKind(rawValue: $0.rawValue) }) }
    }

    /// What the kernel has backends for.
    public enum Kind: String, Equatable, Sendable, CaseIterable {
        case vbd
        case vif
        case pci
    }

    /// Whether the xen-backend bus offers new devices to the kernel's drivers by itself.
    public enum Autoprobe: String, Equatable, Sendable, CaseIterable {
        /// As somebody else has set it; it does after a boot.
        case leave
        /// No more, from xenbackd's start on.
        case off
    }
}

extension Configuration.PCI {
    init(_ table: inout ConfigurationReader) throws(ConfigurationError) {
        self.init()
        pci = try table.boolean("pci") ?? pci
        hide = try table.strings("hide") ?? hide
        layout = try table.choice("layout", PCIBusMode.allCases) ?? layout
        failGuestOnError = try table.boolean("fail-guest-on-error") ?? failGuestOnError
        for text in try table.strings("quirks") ?? [] {
            guard let quirk = PCIQuirkRule(text) else {
                throw table.error(
                    "'\(text)' is no quirk; one looks like 8086:10d3 e0:2:ff (vendor:product register:bytes:bits)",
                    at: "quirks"
                )
            }
            quirks.append(quirk)
        }
    }
}

extension Configuration.Kernel {
    init(_ table: inout ConfigurationReader) throws(ConfigurationError) {
        self.init()
        bind = try table.choices("bind", Configuration.Kind.allCases) ?? bind
        autoprobe = try table.choice("autoprobe", Configuration.Autoprobe.allCases) ?? autoprobe
    }
}
