// What frontend and backend agreed on: rings, ports, offloads. Every number of the frontend is checked here, once.

internal import BackendCore
internal import HostNetwork
internal import XenWire

/// The negotiated facts of one connection; immutable.
struct NetConnection: Hashable, Sendable {
    struct Queue: Hashable, Sendable {
        let transmitRing: GrantReference
        let receiveRing: GrantReference
        /// The frontend's ports; both are the same if it has only one.
        let transmitPort: EventChannelPort
        let receivePort: EventChannelPort
    }
    struct Control: Hashable, Sendable {
        let ring: GrantReference
        let port: EventChannelPort
    }
    let queues: [Queue]
    let control: Control?
    /// What the frontend accepts.
    let accepts: ReceiveFeatures
    /// false: it never notifies when it posts buffers.
    let notifiesOfBuffers: Bool
    /// Multicast only for addresses that it added, from the beginning.
    let requestsMulticastControl: Bool

    /// For people.
    var summary: String {
        var parts = ["\(queues.count) queue(s)"]
        if queues.contains(where: { $0.transmitPort != $0.receivePort }) { parts.append("split event channels") }
        for (feature, name) in NetConnection.featureNames where accepts.contains(feature) { parts.append(name) }
        if control != nil { parts.append("control ring") }
        return parts.joined(separator: ", ")
    }

    private static let featureNames: [(ReceiveFeatures, String)] = [
        (.scatterGather, "sg"), (.segmentationV4, "gso-tcpv4"), (.segmentationV6, "gso-tcpv6"),
        (.checksumV4, "csum"), (.checksumV6, "csum-ipv6"),
    ]

    /// What identifies this connection, for the journal.
    /// - Parameter domain: a name for the frontend's domain that no other domain ever has.
    func identity(domain: String) -> String {
        var text = "domain=\(domain)"
        for queue in queues {
            text += ";tx=\(queue.transmitRing.rawValue):\(queue.transmitPort.rawValue)"
            text += ";rx=\(queue.receiveRing.rawValue):\(queue.receivePort.rawValue)"
        }
        if let control { text += ";ctrl=\(control.ring.rawValue):\(control.port.rawValue)" }
        return text
    }

    /// The offloads that the host may use in packets for this frontend. Where the frontend takes one only for one IP
    /// version, we do the work for the other (`InternetChecksum`), because the host has a single switch for both.
    var offloads: PacketOffloads {
        guard !accepts.isDisjoint(with: [.checksumV4, .checksumV6]) else { return [] }
        var offloads: PacketOffloads = .checksum
        if accepts.contains(.segmentationV4) { offloads.insert(.segmentationV4) }
        if accepts.contains(.segmentationV6) { offloads.insert(.segmentationV6) }
        return offloads
    }
}

// Reading the frontend's keys, in two rounds: what the second must read depends on the first.
extension NetConnection: NegotiatedConnection {
    static let firstKeys = [
        BusKeys.multiQueueNumQueues, NetKeys.requestReceiveCopy, NetKeys.featureReceiveNotify,
        NetKeys.featureScatterGather, NetKeys.featureSegmentationV4, NetKeys.featureSegmentationV6,
        NetKeys.featureNoChecksumOffload, NetKeys.featureChecksumOffloadV6, NetKeys.requestMulticastControl,
        NetKeys.controlRingReference, NetKeys.eventChannelControl,
    ]
    private static let queueKeys = [
        NetKeys.transmitRingReference, NetKeys.receiveRingReference, NetKeys.eventChannelTransmit,
        NetKeys.eventChannelReceive, BusKeys.eventChannel,
    ]

    /// At most 16 × 5.
    static func furtherKeys(_ first: FrontendNodes, _ capabilities: NetCapabilities) -> [String] {
        guard let count = try? queueCount(first, capabilities) else { return [] }
        return (0..<count).flatMap { queue in queueKeys.map { prefix(queue, of: count) + $0 } }
    }

    init(_ reader: inout FrontendNodeReader, _ capabilities: NetCapabilities) throws(FrontendNodeFault) {
        let keys = reader.keys
        guard keys.flag(NetKeys.requestReceiveCopy) else {
            throw FrontendNodeFault(NetKeys.requestReceiveCopy, "is not 1: the frontend wants pages flipped")
        }
        let count = try NetConnection.queueCount(keys, capabilities)
        var queues: [Queue] = []
        for index in 0..<count {
            queues.append(try Queue(&reader, NetConnection.prefix(index, of: count)))
        }
        if keys[NetKeys.controlRingReference] != nil {
            control = Control(
                ring: try reader.reference(NetKeys.controlRingReference),
                port: try reader.port(NetKeys.eventChannelControl)
            )
        } else {
            control = nil
        }
        self.queues = queues
        var features: ReceiveFeatures = []
        if keys.flag(NetKeys.featureScatterGather) { features.insert(.scatterGather) }
        if keys.flag(NetKeys.featureSegmentationV4) { features.insert(.segmentationV4) }
        if keys.flag(NetKeys.featureSegmentationV6) { features.insert(.segmentationV6) }
        if !keys.flag(NetKeys.featureNoChecksumOffload) { features.insert(.checksumV4) }
        if keys.flag(NetKeys.featureChecksumOffloadV6) { features.insert(.checksumV6) }
        accepts = features.usable
        notifiesOfBuffers = keys.flag(NetKeys.featureReceiveNotify)
        requestsMulticastControl = keys.flag(NetKeys.requestMulticastControl)
    }

    private static func queueCount(_ keys: FrontendNodes, _ capabilities: NetCapabilities) throws(FrontendNodeFault)
        -> Int
    {
        guard keys[BusKeys.multiQueueNumQueues] != nil else { return 1 }
        return Int(try keys.number(BusKeys.multiQueueNumQueues, in: 1...UInt32(capabilities.maxQueues)))
    }

    /// A single queue has its keys in the frontend's directory itself (netif.h, "multi-queue").
    private static func prefix(_ queue: Int, of count: Int) -> String {
        count == 1 ? "" : "\(BusKeys.queue(queue))/"
    }
}

extension NetConnection.Queue {
    fileprivate init(_ reader: inout FrontendNodeReader, _ prefix: String) throws(FrontendNodeFault) {
        transmitRing = try reader.reference(prefix + NetKeys.transmitRingReference)
        receiveRing = try reader.reference(prefix + NetKeys.receiveRingReference)
        if reader[prefix + NetKeys.eventChannelTransmit] != nil {
            transmitPort = try reader.port(prefix + NetKeys.eventChannelTransmit)
            receivePort = try reader.port(prefix + NetKeys.eventChannelReceive)
        } else {
            transmitPort = try reader.port(prefix + BusKeys.eventChannel)
            receivePort = transmitPort
        }
    }
}
