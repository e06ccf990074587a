// The device classes of this build, asked who owns a directory.

internal import BackendCore
internal import HostUSB
internal import USBBackend
internal import XenWire

/// Every class that serves devices here, in the order they are asked.
struct DeviceClasses: Sendable {
    let all: [any DeviceClass]

    var kinds: [DeviceKind] {
        var kinds: [DeviceKind] = []
        for kind in all.flatMap(\.kinds) where !kinds.contains(kind) { kinds.append(kind) }
        return kinds
    }

    func owner(of keys: BackendNodes) -> (any DeviceClass)? {
        all.first { $0.kinds.contains(keys.path.kind) && $0.owns(keys) }
    }
}

/// A device class that serves USB devices of the host.
protocol USBServing: DeviceClass {
    var host: any USBHost { get }
}

extension USBClass: USBServing {}

extension DeviceClasses {
    /// The host's USB; nil where no class serves it.
    var usbHost: (any USBHost)? { all.lazy.compactMap { ($0 as? any USBServing)?.host }.first }
}
