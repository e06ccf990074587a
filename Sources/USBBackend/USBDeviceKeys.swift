// What the toolstack specified for a USB controller: the backend directory's keys, read once and turned into a value.

internal import BackendCore
internal import XenWire

/// The toolstack's half of a controller's keys (usbif.h, "Backend XenBus Nodes"; libxl_usb.c).
struct USBDeviceKeys: Hashable, Sendable {
    /// Keys to read.
    static let names = [BusKeys.frontend, USBKeys.version, USBKeys.portCount]

    /// Absolute path of the frontend's directory.
    let frontend: String
    private let version: String?
    private let portCount: String?

    init(_ keys: BackendNodes) {
        frontend = keys[BusKeys.frontend] ?? keys.path.frontend
        version = keys[USBKeys.version]
        portCount = keys[USBKeys.portCount]
    }

    /// The controller that is asked for.
    /// - Throws: `.invalid` for malformed keys, with how to mend them.
    func shape() throws(BackendFailure) -> USBControllerShape {
        if let shape = USBControllerShape(version: version, portCount: portCount) { return shape }
        if version.flatMap({ UInt8(decimal: $0) }).flatMap(USBVersion.init(rawValue:)) == nil {
            throw BackendFailure(
                .invalid,
                "\(USBKeys.version)=\(FrontendNodes.quoted(version)) is neither 1 (USB 1.1) nor 2 (USB 2.0)"
            )
        }
        throw BackendFailure(
            .invalid,
            "\(USBKeys.portCount)=\(FrontendNodes.quoted(portCount)) is not a number from 1 to \(USBPort.maxNumber)"
        )
    }
}
