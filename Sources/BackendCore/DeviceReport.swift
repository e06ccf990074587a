// What a device tells about itself, for `xenback show` and for metrics.

public import XenWire

/// A snapshot of one device, as data; what people read is derived from it.
public struct DeviceReport: Sendable {
    public var path: DevicePath
    /// As XenStore has them; nil where the node is missing or not a state.
    public var backendState: XenbusState?
    public var frontendState: XenbusState?
    /// What the device is doing, in a few words: `waiting for hotplug`, `connected`, `waiting for the image's lock` …
    public var phase: String
    /// The facts of its class; nil where the class has not told any.
    public var body: Body?
    /// Counters, in the order to show them; they only grow while the device exists.
    public var counters: [Counter]
    /// Time from taking a request to publishing its response; nil where that is not measured.
    public var latency: LatencyHistogram?
    /// The last thing the frontend did wrong.
    public var lastFault: String?
    /// The last thing that went wrong on our side.
    public var lastFailure: String?

    /// What only devices of one class have.
    public enum Body: Hashable, Sendable {
        case disk(DiskReport)
        case card(CardReport)
        case controller(ControllerReport)
        case functions(FunctionsReport)
    }

    /// The body in words, in the order to show it.
    public var details: [Detail] {
        switch body {
        case .disk(let disk): disk.details
        case .card(let card): card.details
        case .controller(let controller): controller.details
        case .functions(let functions): functions.details
        case nil: []
        }
    }

    public struct Detail: Hashable, Sendable {
        public let name: String
        public let value: String
        public init(_ name: String, _ value: String) {
            self.name = name
            self.value = value
        }
    }
    public struct Counter: Hashable, Sendable {
        public let name: String
        public let value: UInt64
        public init(_ name: String, _ value: UInt64) {
            self.name = name
            self.value = value
        }
    }

    public init(path: DevicePath, phase: String) {
        self.path = path
        self.phase = phase
        counters = []
    }
}
