// A network frontend without manners: every word of its rings, every key and every grant is the caller's to spoil.

public import Hypervisor
internal import SharedRing
public import XenWire

/// The frontend of hostile tests and fuzzers. It does nothing by itself: no state machine, no flow control, no thread.
public final class RawNetworkFrontend: Sendable {
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
        let backend = try await bus.backend().domain
        let hypervisor = hypervisor
        let events = try FrontendDrivers.hypervisor { () throws(HypervisorFailure) in
            try hypervisor.openEventChannels()
        }
        return try RawRing(hypervisor, backend: backend, stride: NetWire.controlStride, events: events)
    }

    /// Grants pages for data to the backend. They end with the last reference to the result.
    public func makePages(
        _ count: Int,
        access: GrantAccess = .readWrite
    ) async throws(FrontendFailure) -> SharedGrant {
        let backend = try await bus.backend().domain
        let sharing = hypervisor.sharing
        return try FrontendDrivers.hypervisor { () throws(HypervisorFailure) in
            try sharing.share(pageCount: count, with: backend, access: access)
        }
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
        let backend = try await bus.backend().path
        _ = try await bus.wait(for: [.initWait], of: backend)
        try await bus.publish(self.keys(of: queues, control: control) + keys)
        try await bus.publish(.connected)
        let state = try await bus.wait(for: [.connected, .closing, .closed], of: backend)
        guard state == .connected else { throw .timedOut(waitingFor: [.connected], saw: state) }
    }
}

/// The two rings of one queue, raw.
public final class RawNetworkQueue: Sendable {
    public let transmit: RawRing
    public let receive: RawRing

    init(_ hypervisor: any Hypervisor, backend: DomainID, split: Bool) throws(FrontendFailure) {
        let events = try FrontendDrivers.hypervisor { () throws(HypervisorFailure) in
            try hypervisor.openEventChannels()
        }
        transmit = try RawRing(hypervisor, backend: backend, stride: NetWire.transmitStride, events: events)
        receive = try RawRing(
            hypervisor,
            backend: backend,
            stride: NetWire.receiveStride,
            events: events,
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
