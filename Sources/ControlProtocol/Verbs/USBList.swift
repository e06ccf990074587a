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
