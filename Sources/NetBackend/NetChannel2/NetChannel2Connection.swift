// What a netchannel2 frontend published: its rings and ports (XenWire's NetChannel2Protocol.md, profiles P1 and P2).

internal import BackendCore
internal import XenWire

/// The facts of one connection.
struct NetChannel2Connection: Hashable, Sendable {
    struct Queue: Hashable, Sendable {
        let control: GrantReference
        /// The ring that the frontend produces on, and the one that we produce on.
        let frontendRing: [GrantReference]
        let backendRing: [GrantReference]
        let port: EventChannelPort
    }
    let queues: [Queue]

    /// For the log.
    var summary: String {
        let rings = queues.first.map { "\(4 * $0.frontendRing.count) and \(4 * $0.backendRing.count) KiB" } ?? ""
        return "netchannel2, \(queues.count == 1 ? "1 queue" : "\(queues.count) queues"), rings of \(rings)"
    }
}

extension NetChannel2Connection: NegotiatedConnection {
    static let firstKeys = [BusKeys.multiQueueNumQueues]

    /// At most 16 × (4 + 2 × 16).
    static func furtherKeys(_ first: FrontendNodes, _ capabilities: NetCapabilities) -> [String] {
        guard let count = try? queueCount(first, capabilities) else { return [] }
        var names = [
            NetChannel2Keys.control, NetChannel2Keys.producerOrder, NetChannel2Keys.consumerOrder,
            BusKeys.eventChannel,
        ]
        for page in 0..<1 << Int(NetChannel2Wire.maxRingOrder) {
            names += [NetChannel2Keys.producerPage(page), NetChannel2Keys.consumerPage(page)]
        }
        return (0..<count).flatMap { queue in names.map { prefix(queue, of: count) + $0 } }
    }

    init(_ reader: inout FrontendNodeReader, _ capabilities: NetCapabilities) throws(FrontendNodeFault) {
        let count = try NetChannel2Connection.queueCount(reader.keys, capabilities)
        var queues: [Queue] = []
        for index in 0..<count {
            queues.append(try Queue(&reader, NetChannel2Connection.prefix(index, of: count)))
        }
        self.queues = queues
    }

    private static func queueCount(_ keys: FrontendNodes, _ capabilities: NetCapabilities) throws(FrontendNodeFault)
        -> Int
    {
        guard keys[BusKeys.multiQueueNumQueues] != nil else { return 1 }
        return Int(try keys.number(BusKeys.multiQueueNumQueues, in: 1...UInt32(capabilities.maxQueues)))
    }

    /// A single queue has its keys in the frontend's directory itself.
    private static func prefix(_ queue: Int, of count: Int) -> String {
        count == 1 ? "" : "\(BusKeys.queue(queue))/"
    }
}

extension NetChannel2Connection.Queue {
    fileprivate init(_ reader: inout FrontendNodeReader, _ prefix: String) throws(FrontendNodeFault) {
        control = try reader.reference(prefix + NetChannel2Keys.control)
        let orders = 0...NetChannel2Wire.maxRingOrder
        let producer = try reader.number(prefix + NetChannel2Keys.producerOrder, in: orders)
        let consumer = try reader.number(prefix + NetChannel2Keys.consumerOrder, in: orders)
        var rings: [[GrantReference]] = [[], []]
        for page in 0..<1 << Int(producer) {
            rings[0].append(try reader.reference(prefix + NetChannel2Keys.producerPage(page)))
        }
        for page in 0..<1 << Int(consumer) {
            rings[1].append(try reader.reference(prefix + NetChannel2Keys.consumerPage(page)))
        }
        (frontendRing, backendRing) = (rings[0], rings[1])
        port = try reader.port(prefix + BusKeys.eventChannel)
    }
}
