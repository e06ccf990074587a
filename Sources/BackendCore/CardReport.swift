// What a network card tells about itself.

/// The facts of one card. Transmit and receive as the frontend sees them.
public struct CardReport: Hashable, Sendable {
    /// The guest's address, as the toolstack wrote it.
    public var mac: String?
    /// The interface at the host's end.
    public var interface: String?
    /// The bridge that the toolstack asked for.
    public var bridge: String?
    /// Bytes.
    public var mtu: UInt32
    /// The limit that is in force, for people; nil: none.
    public var rate: String?
    /// nil while no frontend is connected.
    public var queueCount: Int?
    /// What was negotiated, for people; nil while no frontend is connected.
    public var connection: String?
    /// How packets get to the interface and back, for people; nil while no frontend is connected.
    public var host: String?
    /// Multicast addresses that the frontend asked for; nil where it takes all.
    public var multicastCount: Int?
    public var transmitted = Traffic()
    public var received = Traffic()

    /// One direction's packets since the device exists.
    public struct Traffic: Hashable, Sendable {
        public var packets: UInt64
        public var bytes: UInt64
        public var dropped: UInt64

        public init(packets: UInt64 = 0, bytes: UInt64 = 0, dropped: UInt64 = 0) {
            self.packets = packets
            self.bytes = bytes
            self.dropped = dropped
        }
    }

    public init(mtu: UInt32) { self.mtu = mtu }

    var details: [DeviceReport.Detail] {
        let facts: [(String, String?)] = [
            ("mac", mac), ("interface", interface), ("bridge", bridge), ("mtu", "\(mtu)"), ("rate", rate),
            ("queues", queueCount.map { "\($0)" }), ("connection", connection),
            ("packets-by", host),
            ("multicast", multicastCount.map { "\($0) addresses" }),
        ]
        return facts.compactMap { name, value in value.map { DeviceReport.Detail(name, $0) } }
    }
}
