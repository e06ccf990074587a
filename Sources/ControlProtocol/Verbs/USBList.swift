// The verb USBList.

/// The USB controllers of a domain and what is in their ports.
public struct USBList: ControlVerb {
    public static let name = "USBList"

    public struct Reply: Codable, Equatable, Sendable {
        public var controllers: [USBController]

        public init(controllers: [USBController]) {
            self.controllers = controllers
        }
    }

    /// Number or name.
    public var domain: String

    public init(domain: String) {
        self.domain = domain
    }
}

/// One controller in a list (`USBController` of the interface).
public struct USBController: Codable, Equatable, Sendable {
    /// One of its ports (`USBPort` of the interface).
    public struct Port: Codable, Equatable, Sendable {
        /// From 1.
        public var number: Int
        /// What is to be in it: a bus id or a rule; nil: nothing.
        public var wanted: String?
        /// What is in it.
        public var device: USBDevice?
        /// Why nothing is in it.
        public var problem: String?

        public init(number: Int, wanted: String? = nil, device: USBDevice? = nil, problem: String? = nil) {
            self.number = number
            self.wanted = wanted
            self.device = device
            self.problem = problem
        }
    }

    public var device: Device
    /// The domain that serves it.
    public var backend: Int
    /// 1 or 2; nil where XenStore says nothing that makes sense.
    public var version: Int?
    public var ports: [Port]

    public init(device: Device, backend: Int, version: Int? = nil, ports: [Port]) {
        self.device = device
        self.backend = backend
        self.version = version
        self.ports = ports
    }
}

/// What only a USB controller has (`ControllerFacts` of the interface).
public struct ControllerFacts: Codable, Equatable, Sendable {
    /// What a worker tells of one port (`PortFacts` of the interface).
    public struct Port: Codable, Equatable, Sendable {
        public enum State: String, Codable, Sendable { case device, waiting, failed }

        /// From 1.
        public var number: Int
        public var state: State
        /// Where the device that is in it is plugged in: `1-1.4`; nil without one.
        public var bus: String?
        /// All about the device, what is waited for, or why there is nothing.
        public var text: String

        public init(number: Int, state: State, bus: String? = nil, text: String) {
            self.number = number
            self.state = state
            self.bus = bus
            self.text = text
        }
    }

    /// 1 or 2.
    public var version: Int?
    public var portCount: Int?
    /// Those that are not empty or are to have something in them.
    public var ports: [Port]

    public init(version: Int? = nil, portCount: Int? = nil, ports: [Port] = []) {
        self.version = version
        self.portCount = portCount
        self.ports = ports
    }

    /// What the worker tells of a port; nil: it is empty and is to be.
    public func port(_ number: Int) -> Port? { ports.first { $0.number == number } }
}
