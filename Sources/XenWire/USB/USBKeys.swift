// Names of the XenStore keys of USB controllers (public/io/usbif.h), and what the toolstack's two numbers may be.

/// Keys of the backend's and the frontend's half, beyond those of `BusKeys`.
public enum USBKeys {
    // Backend, written by the toolstack.
    /// A `USBVersion`.
    public static let version = "usb-ver"
    /// 1 … 31
    public static let portCount = "num-ports"
    /// What libxl calls the controller's type: `pv` or `qusb`.
    public static let type = "type"
    /// The folder of the ports.
    public static let ports = "port"
    /// The device for a port, by its place on the host's buses (`3-1.5`); empty: none.
    public static func port(_ port: USBPort) -> String { "\(ports)/\(port)" }

    // Frontend.
    public static let urbRingReference = "urb-ring-ref"
    public static let connectionRingReference = "conn-ring-ref"
    /// An ABI name; all lay the rings out alike.
    public static let `protocol` = "protocol"
}

/// A controller as the toolstack made it.
public struct USBControllerShape: Hashable, Sendable {
    public let version: USBVersion
    /// 1 … 31
    public let portCount: Int

    @inlinable
    public init?(_ version: USBVersion, portCount: Int) {
        guard portCount >= 1, portCount <= Int(USBPort.maxNumber) else { return nil }
        self.version = version
        self.portCount = portCount
    }

    /// Reads `usb-ver` and `num-ports`.
    /// - Returns: nil if either is missing or anything but a decimal number in its range: xen-hcd would not take the
    ///   controller either.
    public init?(version: String?, portCount: String?) {
        guard let version = version.flatMap({ UInt8(decimal: $0) }).flatMap(USBVersion.init(rawValue:)),
            let portCount = portCount.flatMap({ Int(decimal: $0) })
        else { return nil }
        self.init(version, portCount: portCount)
    }

    /// All ports, in order.
    public var ports: [USBPort] { (1...portCount).compactMap { USBPort($0) } }
}
