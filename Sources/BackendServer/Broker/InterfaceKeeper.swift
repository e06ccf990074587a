// What the broker asks of the host's network: interfaces that outlive workers, and those that should not have.

internal import HostNetwork
internal import XenWire

/// The host's interfaces that belong to devices. Calls may block.
protocol InterfaceKeeper: Sendable {
    /// Keeps the link of an interface up while the result lives, whoever's queues come and go.
    func park(_ owner: String) throws(NetworkFailure) -> any Sendable
    /// The owners of all interfaces of this service.
    func owners() throws(NetworkFailure) -> [String]
    /// Takes an interface away; no error if it is gone.
    func remove(_ owner: String) throws(NetworkFailure)
}

/// The running kernel's.
struct KernelInterfaces: InterfaceKeeper {
    func park(_ owner: String) throws(NetworkFailure) -> any Sendable { try ParkedQueue(owner: owner) }

    func owners() throws(NetworkFailure) -> [String] { try KernelNetwork.leftovers().map(\.owner) }

    func remove(_ owner: String) throws(NetworkFailure) { try KernelNetwork.remove(owner: owner) }
}

extension DevicePath {
    /// Whose interface it is, as the interface itself says (`ifalias`): `xenback backend/vif/7/0`.
    var interfaceOwner: String { KernelNetwork.ownerPrefix + description }

    /// The device of an owner; nil for one of another kind of owner.
    init?(interfaceOwner: String) {
        guard interfaceOwner.hasPrefix(KernelNetwork.ownerPrefix) else { return nil }
        self.init(text: interfaceOwner.dropFirst(KernelNetwork.ownerPrefix.count))
    }
}

extension DeviceKind {
    /// Whether the host has an interface for each device of this kind.
    var hasInterface: Bool { self == .vif || self == .vif2 }
}
