// The verb USBListAssignable.

/// The devices of this host that a guest could have: no hubs, and none that a guest has.
public struct USBListAssignable: ControlVerb {
    public static let name = "USBListAssignable"

    public struct Reply: Codable, Equatable, Sendable {
        public var devices: [USBDevice]

        public init(devices: [USBDevice]) {
            self.devices = devices
        }
    }

    public init() {}
}

/// One device of the host's buses (`USBDevice` of the interface).
public struct USBDevice: Codable, Equatable, Sendable {
    /// Where it is plugged in, as /sys/bus/usb/devices names it: `1-1.4`.
    public var bus: String
    public var vendor: Int
    public var product: Int
    /// What it says of itself.
    public var name: String?
    public var serial: String?
    /// `low`, `full`, `high` or `super`.
    public var speed: String

    public init(
        bus: String,
        vendor: Int,
        product: Int,
        name: String? = nil,
        serial: String? = nil,
        speed: String
    ) {
        self.bus = bus
        self.vendor = vendor
        self.product = product
        self.name = name
        self.serial = serial
        self.speed = speed
    }
}
