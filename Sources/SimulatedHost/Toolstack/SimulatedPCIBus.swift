// The PCI buses of a guest as libxl describes them, and cards that libxl adds and removes while it runs.

internal import Hypervisor
public import XenWire

extension SimulatedToolstack {
    /// The cards that a guest starts with (libxl_pci.c, `libxl__create_pci_backend`).
    public struct PCIBus: SimulatedDevice {
        public var path: DevicePath
        public var backendDomain = DomainID.initial
        /// Cards of the host with their options.
        public var cards: [(address: PCIAddress, options: PCIOptions)]

        public init(_ path: DevicePath, _ cards: [(PCIAddress, PCIOptions)]) {
            self.path = path
            self.cards = cards
        }

        public var backendKeys: [(String, String)] {
            var keys = [
                (BusKeys.frontend, path.frontend),
                (BusKeys.frontendID, "\(path.domain)"),
                (BusKeys.online, "1"),
                (BusKeys.state, XenbusState.initialising.text),
                ("domain", "guest"),
            ]
            for (index, card) in cards.enumerated() {
                keys += SimulatedToolstack.pciKeys(index, card.address, card.options)
            }
            return keys + [(PCIKeys.count, "\(cards.count)")]
        }

        public var frontendKeys: [(String, String)] {
            [
                (BusKeys.backend, backend),
                (BusKeys.backendID, "\(backendDomain)"),
                (BusKeys.state, XenbusState.initialising.text),
            ]
        }
    }

    static func pciKeys(_ index: Int, _ address: PCIAddress, _ options: PCIOptions) -> [(String, String)] {
        [
            (PCIKeys.key(index), "\(address)"),
            (PCIKeys.device(index), "\(address)"),
            (PCIKeys.options(index), "\(options)"),
            (PCIKeys.state(index), XenbusState.initialising.text),
        ]
    }

    /// Adds a card to a guest that has cards (`libxl__device_pci_add_xenstore`).
    /// - Parameter starting: the guest is being built, and nothing is waited for.
    public func addCard(
        _ address: PCIAddress,
        _ options: PCIOptions = PCIOptions(),
        to bus: PCIBus,
        starting: Bool = false
    ) async throws {
        if !starting { try await waitForState(.connected, of: bus) }
        let directory = bus.backend
        let count = try await store.read("\(directory)/\(PCIKeys.count)").flatMap { Int($0) } ?? 0
        var keys = SimulatedToolstack.pciKeys(count, address, options) + [(PCIKeys.count, "\(count + 1)")]
        if !starting { keys.append((BusKeys.state, XenbusState.reconfiguring.text)) }
        let all = keys
        try await store.transaction { (store) throws(HypervisorFailure) in
            for (name, value) in all { try store.write("\(directory)/\(name)", value) }
        }
    }

    /// Removes one of several cards (`libxl__device_pci_remove_xenstore`).
    public func removeCard(_ address: PCIAddress, from bus: PCIBus) async throws {
        try await waitForState(.connected, of: bus)
        let directory = bus.backend
        let count = try await store.read("\(directory)/\(PCIKeys.count)").flatMap { Int($0) } ?? 0
        var found: Int?
        for index in 0..<count where found == nil {
            if try await store.read("\(directory)/\(PCIKeys.device(index))") == "\(address)" { found = index }
        }
        guard let index = found else { throw SimulatedCardMissing(address: address) }
        try await store.transaction { (store) throws(HypervisorFailure) in
            try store.write("\(directory)/\(PCIKeys.state(index))", XenbusState.closing.text)
            try store.write("\(directory)/\(BusKeys.state)", XenbusState.reconfiguring.text)
        }
        try await waitForState(.connected, of: bus)
        let names = [PCIKeys.state, PCIKeys.key, PCIKeys.device, PCIKeys.virtualDevice, PCIKeys.options]
        try await store.transaction { (store) throws(HypervisorFailure) in
            for name in names { try store.remove("\(directory)/\(name(index))") }
            try store.write("\(directory)/\(PCIKeys.count)", "\(count - 1)")
            for later in index + 1..<max(count, index + 1) {
                for name in names {
                    guard let value = try store.read("\(directory)/\(name(later))") else { continue }
                    try store.write("\(directory)/\(name(later - 1))", value)
                    try store.remove("\(directory)/\(name(later))")
                }
            }
        }
    }

    /// `libxl__wait_for_backend`: looks a hundred times, every tenth of a second.
    public func waitForState(_ state: XenbusState, of bus: PCIBus) async throws {
        for _ in 0..<1000 {
            if try await store.read("\(bus.backend)/\(BusKeys.state)") == state.text { return }
            try await Task.sleep(for: .milliseconds(10))
        }
        throw SimulatedBackendNotReady(path: bus.path)
    }
}

/// libxl's "Couldn't find the device on xenstore".
public struct SimulatedCardMissing: Error { public let address: PCIAddress }
/// libxl's "pci backend at … is not ready".
public struct SimulatedBackendNotReady: Error { public let path: DevicePath }
