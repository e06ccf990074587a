// The verbs USBAttach and USBDetach.

/// Puts a device of the host into a port of a guest's controller.
public struct USBAttach: ControlVerb {
    public static let name = "USBAttach"

    public struct Reply: Codable, Equatable, Sendable {
        /// What is in the port now: without a device if the rule fits none yet.
        public var port: USBController.Port

        public init(port: USBController.Port) {
            self.port = port
        }
    }

    /// Number or name.
    public var domain: String
    /// The controller's number.
    public var device: String
    /// From 1.
    public var port: Int
    /// A bus id, `1-1.4`, or a rule that any device may fit, also one that comes later.
    public var bus: String

    public init(domain: String, device: String, port: Int, bus: String) {
        self.domain = domain
        self.device = device
        self.port = port
        self.bus = bus
    }
}

/// Takes the device out of a port; the host has it back.
public struct USBDetach: ControlVerb {
    public static let name = "USBDetach"
    public typealias Reply = NoParameters

    /// Number or name.
    public var domain: String
    /// The controller's number.
    public var device: String
    /// From 1.
    public var port: Int

    public init(domain: String, device: String, port: Int) {
        self.domain = domain
        self.device = device
        self.port = port
    }
}
