// The verbs USBControllerCreate and USBControllerDestroy.

/// Gives a running domain a USB controller, with devices in its ports.
public struct USBControllerCreate: ControlVerb {
    public static let name = "USBControllerCreate"

    public struct Reply: Codable, Equatable, Sendable {
        public var device: Device

        public init(device: Device) {
            self.device = device
        }
    }

    /// Number or name.
    public var domain: String
    /// A `USBLine`: `usbver=2, numports=8, port_1=1-1`.
    public var controller: String

    public init(domain: String, controller: String) {
        self.domain = domain
        self.controller = controller
    }
}

/// Takes a controller from a domain, with all devices in it.
public struct USBControllerDestroy: ControlVerb {
    public static let name = "USBControllerDestroy"
    public typealias Reply = NoParameters

    /// Number or name.
    public var domain: String
    /// The controller's number.
    public var device: String
    /// Take it away if the frontend does not let go in time.
    public var force: Bool?

    public init(domain: String, device: String, force: Bool? = nil) {
        self.domain = domain
        self.device = device
        self.force = force
    }
}
