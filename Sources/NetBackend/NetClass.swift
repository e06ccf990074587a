// Which backend directories are network cards of ours.

public import BackendCore
public import HostNetwork
public import XenWire

/// Network cards: all of kind `vif`, unless the configuration says that they are the kernel's.
public struct NetClass: DeviceClass {
    public let capabilities: NetCapabilities
    public let host: any NetworkHost

    /// - Parameter host: makes the interfaces.
    public init(capabilities: NetCapabilities, host: any NetworkHost) {
        self.capabilities = capabilities
        self.host = host
    }

    public var kinds: [DeviceKind] { [.vif] }

    public func owns(_ keys: BackendNodes) -> Bool { keys.path.kind == .vif }

    public func makeBackend(_ path: DevicePath, _ environment: WorkerEnvironment) -> any DeviceBackend {
        NetBackend(path, environment, capabilities, host)
    }
}
