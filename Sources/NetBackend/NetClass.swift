// Which backend directories are network cards of ours.

public import BackendCore
public import HostNetwork
public import XenWire

/// Network cards: all of kind `vif`, unless the configuration says that they are the kernel's.
public struct NetClass: DeviceClass {
    public let offer: NetOffer
    public let host: any NetworkHost

    /// - Parameter host: makes the interfaces.
    public init(offer: NetOffer, host: any NetworkHost) {
        self.offer = offer
        self.host = host
    }

    public var kinds: [DeviceKind] { [.vif] }

    public func owns(_ keys: BackendKeys) -> Bool { keys.path.kind == .vif }

    public func makeBackend(_ path: DevicePath, _ environment: WorkerEnvironment) -> any DeviceBackend {
        NetBackend(path, environment, offer, host)
    }
}
