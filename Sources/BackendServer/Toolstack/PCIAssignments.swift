// Which guest has which card: what XenStore says of all PCI backends of this domain.

internal import Hypervisor
internal import XenWire

/// Cards of guests, whoever serves them.
struct PCIAssignments: Sendable {
    /// The guest's domain, by card.
    var holders: [PCIAddress: DomainID] = [:]
    /// Every card as the toolstack wrote it, by the backend device that serves it.
    var entries: [DevicePath: [PCIDeviceEntry]] = [:]
    /// Backends whose keys make no sense, with what is wrong: they may have any card.
    var unreadable: [DomainID: PCITextFault] = [:]

    /// One look at them all.
    static func read(_ store: any XenStoreOperations) throws(HypervisorFailure) -> PCIAssignments {
        var found = PCIAssignments()
        let folder = DevicePath.folder(of: .pci)
        for domain in try (store.directory(folder) ?? []).compactMap({ DomainID(text: $0) }) {
            // What xen-pciback served stays there when the guest is gone: libxl removes it no more.
            guard try store.directory(domain.home) != nil else { continue }
            // libxl has one backend for all cards of a guest, number 0.
            for index in try (store.directory("\(folder)/\(domain)") ?? []) {
                let path = "\(folder)/\(domain)/\(index)"
                var keys: [String: String] = [:]
                for key in try store.directory(path) ?? [] { keys[key] = try store.read("\(path)/\(key)") }
                // An empty directory is one that is being made, or was left behind.
                if !keys.isEmpty { found.add(domain, index, keys) }
            }
        }
        return found
    }

    private mutating func add(_ domain: DomainID, _ index: String, _ keys: [String: String]) {
        do throws(PCITextFault) {
            let list = try PCIDeviceEntry.list { keys[$0] }
            for entry in list { holders[entry.address] = domain }
            if let index = UInt32(decimal: index) {
                entries[DevicePath(kind: .pci, domain: domain, index: index)] = list
            }
        } catch {
            unreadable[domain] = error
        }
    }

    /// Why a card cannot be taken back now; nil if it can.
    func objection(to card: PCIAddress) -> String? {
        if let domain = holders[card] {
            return "\(card) belongs to domain \(domain): xl pci-detach \(domain) \(card) first"
        }
        guard let (domain, fault) = unreadable.min(by: { $0.key < $1.key }) else { return nil }
        return "\(DevicePath.folder(of: .pci))/\(domain) makes no sense (\(fault)): domain \(domain) may have \(card)"
    }
}
