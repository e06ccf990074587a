// Which backend directories are disks of ours.

public import BackendCore
internal import HostIO
internal import Hypervisor
public import XenWire

/// Block devices: `vbd3` always, `vbd` and `qdisk` as configured.
public struct BlockClass: DeviceClass {
    /// Which devices of kind `vbd` are ours; the kernel's blkback may serve others of them.
    public enum ScriptedDisks: String, Hashable, Sendable {
        /// Those whose `script` is `block-xenback`.
        case script
        case all
        case none
        /// In domain 0 as `script`; in a driver domain, where no script runs and no line names one, all.
        case automatic
    }

    /// The name of our hotplug script, wherever it is installed.
    public static let scriptName = "block-xenback"

    public let vbd: ScriptedDisks
    public let servesQdisk: Bool
    public let capabilities: BlockCapabilities

    public init(vbd: ScriptedDisks = .automatic, servesQdisk: Bool = false, capabilities: BlockCapabilities) {
        self.vbd = vbd
        self.servesQdisk = servesQdisk
        self.capabilities = capabilities
    }

    public var kinds: [DeviceKind] {
        [.vbd3] + (vbd == .none ? [] : [.vbd]) + (servesQdisk ? [.qdisk] : [])
    }

    public func owns(_ keys: BackendNodes) -> Bool {
        switch (keys.path.kind, vbd) {
        case (.vbd3, _), (.vbd, .all): true
        case (.vbd, .automatic) where keys.own != .initial: true
        case (.vbd, .script), (.vbd, .automatic):
            keys[BusKeys.script]?.split(separator: "/").last.map(String.init) == BlockClass.scriptName
        case (.qdisk, _): servesQdisk
        default: false
        }
    }

    public func makeBackend(_ path: DevicePath, _ environment: WorkerEnvironment) -> any DeviceBackend {
        BlockBackend(path, environment, capabilities)
    }
}
