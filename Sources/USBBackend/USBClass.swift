// Which backend directories are USB controllers of ours.

public import BackendCore
public import HostUSB
public import XenWire

/// USB controllers: all of kind `vusb`, which no kernel driver claims; `qusb` where it is ours and not QEMU's.
public struct USBClass: DeviceClass {
    public let host: any USBHost
    public let servesQusb: Bool

    /// - Parameters:
    ///   - host: where the devices are plugged in.
    ///   - servesQusb: QEMU serves that kind in dom0 if it may, and two backends on one ring are corruption.
    public init(host: any USBHost, servesQusb: Bool = false) {
        self.host = host
        self.servesQusb = servesQusb
    }

    public var kinds: [DeviceKind] { servesQusb ? [.vusb, .qusb] : [.vusb] }

    public func owns(_ keys: BackendNodes) -> Bool { kinds.contains(keys.path.kind) }

    public func makeBackend(_ path: DevicePath, _ environment: WorkerEnvironment) -> any DeviceBackend {
        USBBackend(path, environment, host)
    }
}
