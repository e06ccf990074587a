// A hostile network frontend.

public import Hypervisor
internal import SharedRing
public import XenWire

/// The network card's `RawFrontend`.
public final class RawNetworkFrontend: RawFrontend {
    public let hypervisor: any Hypervisor
    public let bus: FrontendBus

    public init(_ hypervisor: any Hypervisor, index: UInt32) {
        self.hypervisor = hypervisor
        bus = FrontendBus(store: hypervisor.store, path: "device/vif/\(index)")
    }

    /// Grants the rings of one queue and allocates its ports.
    /// - Parameter split: a port for each direction.
    public func makeQueue(split: Bool = true) async throws(FrontendFailure) -> RawNetworkQueue {
        try RawNetworkQueue(hypervisor, backend: try await bus.backend().domain, split: split)
    }

    /// Grants a control ring and allocates its port.
    public func makeControlRing() async throws(FrontendFailure) -> RawRing {
        try await makeRing(stride: NetWire.controlStride)
    }

    /// The keys that a well-behaved frontend with these queues writes.
    public func keys(of queues: [RawNetworkQueue], control: RawRing? = nil) -> [(String, String?)] {
        var keys: [(String, String?)] = [
            (BusKeys.multiQueueNumQueues, "\(queues.count)"), (NetKeys.requestReceiveCopy, "1"),
            (NetKeys.featureReceiveNotify, "1"), (NetKeys.featureScatterGather, "1"),
            (NetKeys.featureSegmentationV4, "1"), (NetKeys.featureSegmentationV6, "1"),
            (NetKeys.featureChecksumOffloadV6, "1"),
        ]
        if let control {
            keys.append((NetKeys.controlRingReference, "\(control.grant.references[0].rawValue)"))
            keys.append((NetKeys.eventChannelControl, "\(control.port.rawValue)"))
        }
        for (index, queue) in queues.enumerated() {
            let folder = queues.count > 1 ? "\(BusKeys.queue(index))/" : ""
            keys += queue.keys.map { (folder + $0.0, $0.1) }
        }
        return keys
    }

    /// Connects as a well-behaved frontend would: waits for 2, writes keys and 4, waits for 4.
    /// - Parameter keys: written behind the usual ones, so they replace them; nil removes one.
    public func connect(
        _ queues: [RawNetworkQueue],
        control: RawRing? = nil,
        adding keys: [(String, String?)] = []
    ) async throws(FrontendFailure) {
        try await connect(publishing: self.keys(of: queues, control: control) + keys)
    }
}

/// The two rings of one queue, raw.
public final class RawNetworkQueue: Sendable {
    public let transmit: RawRing
    public let receive: RawRing

    init(_ hypervisor: any Hypervisor, backend: DomainID, split: Bool) throws(FrontendFailure) {
        transmit = try RawRing(hypervisor, backend: backend, stride: NetWire.transmitStride)
        receive = try RawRing(
            hypervisor,
            backend: backend,
            stride: NetWire.receiveStride,
            events: transmit.events,
            port: split ? nil : transmit.port
        )
    }

    var keys: [(String, String?)] {
        let rings: [(String, String?)] = [
            (NetKeys.transmitRingReference, "\(transmit.grant.references[0].rawValue)"),
            (NetKeys.receiveRingReference, "\(receive.grant.references[0].rawValue)"),
        ]
        guard transmit.port != receive.port else {
            return rings + [(BusKeys.eventChannel, "\(transmit.port.rawValue)")]
        }
        return rings + [
            (NetKeys.eventChannelTransmit, "\(transmit.port.rawValue)"),
            (NetKeys.eventChannelReceive, "\(receive.port.rawValue)"),
        ]
    }

    /// A transmit request of 12 bytes, right or wrong.
    public static func request(
        _ reference: GrantReference,
        offset: UInt16 = 0,
        flags: TransmitFlags = [],
        id: UInt16,
        size: UInt16
    ) -> WireWords {
        TransmitRequest<Slot>.words(reference, offset: offset, flags: flags, id: id, size: size)
    }

    /// An extra for a transmit slot.
    public static func extra(_ extra: ExtraInfo, more: Bool = false) -> WireWords {
        WireWords(low: extra.word(more: more), high: 0)
    }

    /// The answer in the transmit slot of ring index `index`.
    public func answer(at index: UInt32) -> TransmitResponse {
        transmit.read(at: index) { TransmitResponse(decoding: $0) }
    }

    /// The response in the receive slot of ring index `index`.
    public func received(at index: UInt32) -> ReceiveResponse {
        receive.read(at: index) { ReceiveResponse(decoding: $0) }
    }
}
