// What the daemon tells about devices.

/// One device in a list (`Device` of the interface).
public struct Device: Codable, Equatable, Sendable {
    /// `backend/vbd3/7/51712`, relative to the backend domain's own directory.
    public var path: String
    /// `vbd`, `vbd3`, `qdisk`.
    public var kind: String
    /// The frontend's domain.
    public var domain: Int
    public var domainName: String?
    public var index: Int
    /// The device's name in the guest, e.g. `xvda`.
    public var node: String?
    /// Names of xenbus states as public/io/xenbus.h spells them: `connected`, `initWait`.
    public var backendState: String
    public var frontendState: String
    /// What the backend is doing or waiting for, as text.
    public var phase: String
    /// The worker's process id.
    public var worker: Int?
    /// The last fault or failure, as text.
    public var problem: String?

    public init(
        path: String,
        kind: String,
        domain: Int,
        domainName: String? = nil,
        index: Int,
        node: String? = nil,
        backendState: String,
        frontendState: String,
        phase: String,
        worker: Int? = nil,
        problem: String? = nil
    ) {
        self.path = path
        self.kind = kind
        self.domain = domain
        self.domainName = domainName
        self.index = index
        self.node = node
        self.backendState = backendState
        self.frontendState = frontendState
        self.phase = phase
        self.worker = worker
        self.problem = problem
    }
}

/// Everything about one device (`Report` of the interface).
public struct Report: Codable, Equatable, Sendable {
    public struct Fact: Codable, Equatable, Sendable {
        public var name: String
        public var value: String
        public init(name: String, value: String) {
            self.name = name
            self.value = value
        }
    }

    public struct Counter: Codable, Equatable, Sendable {
        public var name: String
        public var value: Int64
        public init(name: String, value: Int64) {
            self.name = name
            self.value = value
        }
    }

    /// How long requests took, in powers of two.
    public struct Histogram: Codable, Equatable, Sendable {
        public var name: String
        /// Bucket 0 counts what took less than 1 µs, bucket i what took 2^(i-1) … 2^i µs, the last all that took longer.
        public var buckets: [Int64]
        public init(name: String, buckets: [Int64]) {
            self.name = name
            self.buckets = buckets
        }
    }

    public var device: Device
    /// The facts of the device's class, as data: one of the three, or none if no worker reported any.
    public var disk: DiskFacts?
    public var card: CardFacts?
    public var controller: ControllerFacts?
    /// The same as text: image, mode, negotiated features, in display order.
    public var facts: [Fact]
    public var counters: [Counter]
    public var latencies: [Histogram]
    /// The frontend's last fault.
    public var lastFault: String?
    /// The host's last failure.
    public var lastFailure: String?

    public init(
        device: Device,
        facts: [Fact] = [],
        counters: [Counter] = [],
        latencies: [Histogram] = [],
        lastFault: String? = nil,
        lastFailure: String? = nil
    ) {
        self.device = device
        self.facts = facts
        self.counters = counters
        self.latencies = latencies
        self.lastFault = lastFault
        self.lastFailure = lastFailure
    }
}

/// The facts of a disk (`DiskFacts` of the interface).
public struct DiskFacts: Codable, Equatable, Sendable {
    /// The image; nil in an empty CD-ROM drive.
    public var target: String?
    public var readOnly: Bool
    public var cdrom: Bool
    /// Sectors of 512 bytes, always; nil while no image is open.
    public var sectors: Int64?
    /// Bytes.
    public var logicalBlockSize: Int?

    public init(
        target: String? = nil,
        readOnly: Bool,
        cdrom: Bool,
        sectors: Int64? = nil,
        logicalBlockSize: Int? = nil
    ) {
        self.target = target
        self.readOnly = readOnly
        self.cdrom = cdrom
        self.sectors = sectors
        self.logicalBlockSize = logicalBlockSize
    }
}

/// One disk in a list (`Disk` of the interface).
public struct Disk: Codable, Equatable, Sendable {
    public var device: Device
    /// The image; nil in an empty CD-ROM drive.
    public var target: String?
    public var readOnly: Bool
    public var cdrom: Bool
    /// Sectors of 512 bytes, always.
    public var sectors: Int64?
    /// Bytes.
    public var logicalBlockSize: Int?

    public init(device: Device, _ facts: DiskFacts) {
        self.device = device
        target = facts.target
        readOnly = facts.readOnly
        cdrom = facts.cdrom
        sectors = facts.sectors
        logicalBlockSize = facts.logicalBlockSize
    }
}
