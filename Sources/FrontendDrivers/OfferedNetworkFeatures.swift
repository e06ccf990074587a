// What a network backend offers before it connects, and the keys that a frontend answers with.

internal import Hypervisor
internal import XenWire

/// The backend's features, combined with our options.
struct OfferedNetworkFeatures: Sendable {
    let queueCount: Int
    /// Whether the backend knows of queues at all; if not, their number is not written.
    let isMultiQueue: Bool
    let splitEventChannels: Bool
    let hasControlRing: Bool
    private let features: [String: String]
    private let mac: MACAddress?

    private static let names = [
        NetKeys.featureReceiveCopy, BusKeys.multiQueueMaxQueues, NetKeys.featureSplitEventChannels,
        NetKeys.featureControlRing, NetKeys.featureScatterGather, NetKeys.featureSegmentationV4,
        NetKeys.featureSegmentationV6, NetKeys.featureNoChecksumOffload, NetKeys.featureChecksumOffloadV6,
        NetKeys.featureMulticastControl,
    ]

    /// - Throws: if the backend lacks a feature that netfront requires.
    init(
        reading bus: FrontendBus,
        _ backend: String,
        _ options: NetworkFrontendOptions
    ) async throws(FrontendFailure) {
        let keys = try await bus.read(OfferedNetworkFeatures.names, of: backend)
        guard keys[NetKeys.featureReceiveCopy] == "1" else { throw .unsupported(NetKeys.featureReceiveCopy) }
        let maxQueues = keys[BusKeys.multiQueueMaxQueues].flatMap { Int(decimal: $0) }
        isMultiQueue = maxQueues != nil
        queueCount = max(1, min(options.queueCount, maxQueues ?? 1))
        splitEventChannels = options.splitEventChannels && keys[NetKeys.featureSplitEventChannels] == "1"
        hasControlRing = options.controlRing && keys[NetKeys.featureControlRing] == "1"
        features = keys
        let own = try await bus.read([NetKeys.mac], of: bus.path)
        mac = own[NetKeys.mac].flatMap { MACAddress(text: $0) }
    }

    func connection(_ queueCount: Int, _ backend: DomainID) -> NetworkFrontendConnection {
        var segmentations: Set<Segmentation.Kind> = []
        if has(NetKeys.featureSegmentationV4) { segmentations.insert(.tcpv4) }
        if has(NetKeys.featureSegmentationV6) { segmentations.insert(.tcpv6) }
        return NetworkFrontendConnection(
            queueCount: queueCount,
            splitEventChannels: splitEventChannels,
            hasControlRing: hasControlRing,
            scatterGather: has(NetKeys.featureScatterGather),
            segmentations: segmentations,
            checksumV4: !has(NetKeys.featureNoChecksumOffload),
            checksumV6: has(NetKeys.featureChecksumOffloadV6),
            multicastControl: has(NetKeys.featureMulticastControl),
            mac: mac,
            backend: backend
        )
    }

    private func has(_ key: String) -> Bool { features[key] == "1" }

    /// The keys of one transaction (xen-netfront.c, `talk_to_netback`); nil where an earlier connection's must go.
    func keys(
        _ queues: [NetworkFrontQueue],
        _ control: NetworkControlRing?,
        _ options: NetworkFrontendOptions
    ) -> [(String, String?)] {
        let receives = options.receives
        func flag(_ isSet: Bool) -> String { isSet ? "1" : "0" }
        var keys: [(String, String?)] = [
            (BusKeys.multiQueueNumQueues, isMultiQueue ? "\(queues.count)" : nil),
            (NetKeys.requestReceiveCopy, "1"),
            (NetKeys.featureReceiveNotify, flag(options.receiveNotify)),
            (NetKeys.featureScatterGather, flag(receives.contains(.scatterGather))),
            (NetKeys.featureSegmentationV4, flag(receives.contains(.segmentationV4))),
            (NetKeys.featureSegmentationV6, flag(receives.contains(.segmentationV6))),
            (NetKeys.featureChecksumOffloadV6, flag(receives.contains(.checksumV6))),
            (NetKeys.featureNoChecksumOffload, receives.contains(.checksumV4) ? nil : "1"),
            (NetKeys.requestMulticastControl, options.multicastControl ? "1" : nil),
            (NetKeys.controlRingReference, control.map { "\($0.grant.references[0].rawValue)" }),
            (NetKeys.eventChannelControl, control.map { "\($0.port.rawValue)" }),
        ]
        // With several queues, no queue's keys may be at the top.
        if queues.count > 1 { keys += queues[0].keys.map { ($0.0, nil) } }
        for queue in queues {
            let folder = queues.count > 1 ? "\(BusKeys.queue(queue.index))/" : ""
            keys += queue.keys.map { (folder + $0.0, $0.1) }
        }
        return keys
    }
}

extension NetworkFrontQueue {
    /// The queue's own keys.
    fileprivate var keys: [(String, String?)] {
        let isSplit = receivePort != transmitPort
        return [
            (NetKeys.transmitRingReference, "\(transmitGrant.references[0].rawValue)"),
            (NetKeys.receiveRingReference, "\(receiveGrant.references[0].rawValue)"),
            (BusKeys.eventChannel, isSplit ? nil : "\(transmitPort.rawValue)"),
            (NetKeys.eventChannelTransmit, isSplit ? "\(transmitPort.rawValue)" : nil),
            (NetKeys.eventChannelReceive, isSplit ? "\(receivePort.rawValue)" : nil),
        ]
    }
}
