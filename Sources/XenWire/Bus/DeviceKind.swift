// The kinds of devices, and what each is to the guest.

/// A kind of backend, as the name of its folder under `backend/`.
public enum DeviceKind: String, Sendable, CaseIterable, CustomStringConvertible {
    case vif
    /// netchannel2's own kind.
    case vif2
    case vbd
    /// libxl's `backendtype=tap`: no kernel driver claims it.
    case vbd3
    /// libxl's `backendtype=qdisk`: QEMU's, or ours in a driver domain.
    case qdisk
    case vusb
    case qusb
    case pci

    /// The name of the frontend's folder under `device/`: a `vbd3` or `qdisk` is a `vbd` to its guest.
    public var frontendKind: String {
        switch self {
        case .vif: "vif"
        case .vif2: "vif2"
        case .vbd, .vbd3, .qdisk: "vbd"
        case .vusb, .qusb: "vusb"
        case .pci: "pci"
        }
    }

    /// A disk to its guest, whoever may serve it.
    public var isDisk: Bool { frontendKind == DeviceKind.vbd.rawValue }
    /// A controller whose devices are in its ports.
    public var isUSB: Bool { frontendKind == DeviceKind.vusb.rawValue }
    /// A card whose host end is an interface.
    public var hasInterface: Bool { self == .vif || self == .vif2 }

    public var description: String { rawValue }
}
