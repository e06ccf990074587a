// A netchannel2 card as xend described it in XenStore.

internal import ControlProtocol
internal import Hypervisor
internal import XenWire

/// A card of kind `vif2` to be attached.
struct Network2Specification: DeviceSpecification, Hashable {
    /// What a bridge does not mind: it has no smaller address than any other port.
    static let bridgedMAC = MACAddress(0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF)

    var domain: DomainID
    /// The number in XenStore, from 0; counted apart from `vif`.
    var index: UInt32
    /// The guest's name.
    var domainName: String
    var frontMAC: String
    var backMAC: String
    var bridge: String?
    var isTrusted: Bool
    var isBackTrusted: Bool
    var filters: Bool
    var frontFilters: Bool
    var physicalDevice: String?
    var maxBypasses: Int
    var rate: String?
    var mtu: Int?

    /// Fills in what the line leaves open, as xend did (netif2.py).
    init(_ line: Network2Line, domain: DomainID, index: UInt32, domainName: String) {
        self.domain = domain
        self.index = index
        self.domainName = domainName
        bridge = line.bridge
        frontMAC = line.frontMAC ?? Network2Specification.anyMAC().description
        let backMAC = line.bridge == nil ? Network2Specification.anyMAC() : Network2Specification.bridgedMAC
        self.backMAC = line.backMAC ?? backMAC.description
        isTrusted = line.isTrusted
        isBackTrusted = line.isBackTrusted
        filters = line.filters ?? !line.isTrusted
        frontFilters = line.frontFilters ?? !line.isBackTrusted
        physicalDevice = line.physicalDevice
        maxBypasses = line.maxBypasses
        rate = line.rate
        mtu = line.mtu
    }

    /// Of Xen's own range (OUI 00:16:3e).
    private static func anyMAC() -> MACAddress {
        MACAddress(0x00, 0x16, 0x3E, .random(in: 0...0x7F), .random(in: 0...0xFF), .random(in: 0...0xFF))
    }

    var path: DevicePath { DevicePath(kind: .vif2, domain: domain, index: index) }
    var name: String { "netchannel2 card \(index)" }
    var summary: String { "\(frontMAC), \(bridge.map { "bridge \($0)" } ?? "no bridge")" }
    var hasScript: Bool { false }

    func backendKeys(_ nodes: DeviceNodes) -> [(String, String)] {
        var keys = [
            (BusKeys.frontend, nodes.frontend),
            (BusKeys.frontendID, "\(domain)"),
            (BusKeys.online, "1"),
            (BusKeys.state, XenbusState.initialising.text),
            ("domain", domainName),
            (NetKeys.handle, "\(index)"),
            (NetKeys.mac, backMAC),
            (NetChannel2Keys.remoteMAC, frontMAC),
            (NetChannel2Keys.localTrusted, flag(isBackTrusted)),
            (NetChannel2Keys.remoteTrusted, flag(isTrusted)),
            (NetChannel2Keys.filterMAC, flag(filters)),
            (NetChannel2Keys.maxBypasses, "\(maxBypasses)"),
        ]
        let optional: [(String, String?)] = [
            (NetKeys.bridge, bridge), (NetChannel2Keys.physicalDevice, physicalDevice), (NetKeys.rate, rate),
            (NetKeys.mtu, mtu.map { "\($0)" }),
        ]
        for case (let key, let value?) in optional { keys.append((key, value)) }
        return keys
    }

    var frontendKeys: [(String, String)] {
        var keys = [
            (NetKeys.handle, "\(index)"),
            (NetKeys.mac, frontMAC),
            (NetChannel2Keys.remoteMAC, backMAC),
            (NetChannel2Keys.localTrusted, flag(isTrusted)),
            (NetChannel2Keys.remoteTrusted, flag(isBackTrusted)),
            (NetChannel2Keys.filterMAC, flag(frontFilters)),
        ]
        if let mtu { keys.append((NetKeys.mtu, "\(mtu)")) }
        return keys
    }

    private func flag(_ value: Bool) -> String { value ? "1" : "0" }

    /// A number that no card of this kind has; in a transaction.
    static func freeIndex(
        of domain: DomainID,
        in store: any XenStoreOperations
    ) throws(HypervisorFailure) -> UInt32 {
        let known =
            try (store.directory("/libxl/\(domain)/device/vif2") ?? [])
            + (store.directory("/local/domain/\(domain)/device/vif2") ?? [])
        let taken = Set(known.compactMap { UInt32(decimal: $0) })
        return (0...UInt32.max).first { !taken.contains($0) } ?? 0
    }
}
