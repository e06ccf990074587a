// A hostile USB frontend.

public import Hypervisor
internal import SharedRing
public import XenWire

/// The USB controller's `RawFrontend`.
public final class RawUSBFrontend: RawFrontend {
    public let hypervisor: any Hypervisor
    public let bus: FrontendBus

    public init(_ hypervisor: any Hypervisor, index: UInt32) {
        self.hypervisor = hypervisor
        bus = FrontendBus(store: hypervisor.store, path: "device/vusb/\(index)")
    }

    /// Grants both rings of a controller and allocates their one port.
    public func makeRings() async throws(FrontendFailure) -> RawUSBRings {
        try RawUSBRings(hypervisor, backend: try await bus.backend().domain)
    }

    /// The keys that a well-behaved frontend with these rings writes.
    public func keys(of rings: RawUSBRings) -> [(String, String?)] {
        [
            (USBKeys.urbRingReference, "\(rings.urbs.grant.references[0].rawValue)"),
            (USBKeys.connectionRingReference, "\(rings.connections.grant.references[0].rawValue)"),
            (BusKeys.eventChannel, "\(rings.urbs.port.rawValue)"),
        ]
    }

    /// Connects as a well-behaved frontend would: waits for 2, writes keys, posts requests for events, goes to 4, waits
    /// for 4.
    /// - Parameters:
    ///   - keys: written behind the usual ones, so they replace them; nil removes one.
    ///   - requests: for events, posted before state 4.
    public func connect(
        _ rings: RawUSBRings,
        adding keys: [(String, String?)] = [],
        requests: Int = USBWire.connectionSlots
    ) async throws(FrontendFailure) {
        try await connect(publishing: self.keys(of: rings) + keys) {
            rings.connections.send((0..<requests).map { ConnectionRequest(id: UInt16(truncatingIfNeeded: $0)).words })
        }
    }
}

/// The two rings of one controller, raw. They share a port.
public final class RawUSBRings: Sendable {
    public let urbs: RawRing
    public let connections: RawRing

    init(_ hypervisor: any Hypervisor, backend: DomainID) throws(FrontendFailure) {
        urbs = try RawRing(hypervisor, backend: backend, stride: USBWire.urbStride)
        connections = try RawRing(
            hypervisor,
            backend: backend,
            stride: USBWire.connectionStride,
            events: urbs.events,
            port: urbs.port
        )
    }

    /// All 148 bytes of a request, right or wrong; see `RawURB.encode`.
    public static func request(
        id: UInt16,
        _ pipe: USBPipe,
        _ specifics: RawURBSpecifics,
        segments: [URBSegment] = [],
        segmentCount: UInt16? = nil,
        byteCount: UInt16? = nil,
        flags: UInt16 = 0
    ) -> [UInt8] {
        let bytes = URBBytes()
        RawURB(bytes).encode(
            id: id,
            pipe,
            specifics,
            segments: segments,
            segmentCount: segmentCount,
            byteCount: byteCount,
            flags: flags
        )
        return bytes.bytes
    }

    /// Puts requests of 148 bytes behind the last, makes them visible together and notifies.
    /// - Returns: the ring index of the first.
    @discardableResult
    public func send(_ requests: [[UInt8]]) -> UInt32 {
        let first = urbs.requestProducer
        for (place, request) in requests.enumerated() { urbs.put(request, at: first &+ UInt32(place)) }
        urbs.requestProducer = first &+ UInt32(requests.count)
        urbs.notify()
        return first
    }

    /// The answer in the URB slot of ring index `index`.
    public func answer(at index: UInt32) -> URBResponse { urbs.read(at: index) { URBResponse(decoding: $0) } }

    /// The event in the connection slot of ring index `index`.
    public func event(at index: UInt32) -> ConnectionResponse {
        connections.read(at: index) { ConnectionResponse(decoding: $0) }
    }

    /// Sends one request and waits for the answer in its place (in which the answer to another may be).
    /// - Returns: nil if none came within `limit`.
    public func perform(_ request: [UInt8], within limit: Duration = .seconds(5)) async -> URBResponse? {
        let index = send([request])
        return await urbs.waitForResponses(upTo: index &+ 1, within: limit) ? answer(at: index) : nil
    }
}

/// The bytes of a request that is being written.
private final class URBBytes: WritableWireBytes {
    var bytes = [UInt8](repeating: 0, count: USBWire.urbStride)
    var byteCount: Int { bytes.count }

    private func number(_ offset: Int, _ count: Int) -> UInt64 {
        (0..<count).reduce(0) { $0 | UInt64(bytes[offset + $1]) << UInt64(8 * $1) }
    }
    private func set(_ value: UInt64, _ offset: Int, _ count: Int) {
        for index in 0..<count { bytes[offset + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * index)) }
    }
    func u8(_ offset: Int) -> UInt8 { bytes[offset] }
    func u16(_ offset: Int) -> UInt16 { UInt16(truncatingIfNeeded: number(offset, 2)) }
    func u32(_ offset: Int) -> UInt32 { UInt32(truncatingIfNeeded: number(offset, 4)) }
    func u64(_ offset: Int) -> UInt64 { number(offset, 8) }
    func forEachU64(_ offset: Int, count: Int, _ body: (UInt64) -> Void) {
        for index in 0..<count { body(u64(offset + 8 * index)) }
    }
    func set8(_ value: UInt8, at offset: Int) { set(UInt64(value), offset, 1) }
    func set16(_ value: UInt16, at offset: Int) { set(UInt64(value), offset, 2) }
    func set32(_ value: UInt32, at offset: Int) { set(UInt64(value), offset, 4) }
    func set64(_ value: UInt64, at offset: Int) { set(value, offset, 8) }
}
