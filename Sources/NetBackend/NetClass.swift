// Which backend directories are network cards of ours.

public import BackendCore
public import HostNetwork
public import XenWire

/// Network cards: all of kind `vif`, unless the configuration says that they are the kernel's, and netchannel2's (`vif2`),
/// which no kernel has a backend for.
public struct NetClass: DeviceClass {
    public let capabilities: NetCapabilities
    public let host: any NetworkHost

    /// - Parameter host: makes the interfaces.
    public init(capabilities: NetCapabilities, host: any NetworkHost) {
        self.capabilities = capabilities
        self.host = host
    }

    public var kinds: [DeviceKind] { [.vif, .vif2] }

    public func owns(_ keys: BackendNodes) -> Bool { kinds.contains(keys.path.kind) }

    public func makeBackend(_ path: DevicePath, _ environment: WorkerEnvironment) -> any DeviceBackend {
        if path.kind == .vif2 { return NetChannel2Backend(path, environment, capabilities, host) }
        return NetBackend(path, environment, capabilities, host)
    }
}
