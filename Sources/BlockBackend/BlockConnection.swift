// What frontend and backend agreed on: rings, ports, ABI. Every number of the frontend is checked here, once.

internal import BackendCore
internal import SharedRing
internal import XenWire

/// The negotiated facts of one connection; immutable.
struct BlockConnection: NegotiatedConnection, Hashable {
    struct Queue: Hashable, Sendable {
        /// The ring's pages, in order.
        let references: [GrantReference]
        /// The frontend's port.
        let port: EventChannelPort
    }
    let abi: BlockABI
    let queues: [Queue]
    let usesPersistentGrants: Bool

    /// Slots of each ring.
    var slotsPerQueue: Int {
        BackRing.slots(pageCount: queues.first?.references.count ?? 1, stride: abi.requestSize)
    }

    /// For people.
    var summary: String {
        let pages = queues.first?.references.count ?? 0
        let grants = usesPersistentGrants ? "persistent grants" : "grant copy"
        return "\(abi.rawValue), \(queues.count) queue(s) of \(slotsPerQueue) slots on \(pages) page(s), \(grants)"
    }

    /// What identifies this connection, for the journal.
    /// - Parameter domain: a name for the frontend's domain that no other domain ever has.
    func identity(domain: String) -> String {
        var text = "domain=\(domain);abi=\(abi.rawValue);persistent=\(usesPersistentGrants)"
        for queue in queues {
            text += ";port=\(queue.port.rawValue):"
            text += queue.references.map { String($0.rawValue) }.joined(separator: ",")
        }
        return text
    }
}

// Reading the frontend's keys, in two rounds: what the second must read depends on the first.
extension BlockConnection {
    /// Keys below the frontend's directory to read first.
    static let firstKeys = [
        BusKeys.multiQueueNumQueues, BlockKeys.ringPageOrder, BlockKeys.protocol, BlockKeys.featurePersistent,
    ]

    /// Keys to read next; none if the first are wrong already. At most 16 × 17.
    static func furtherKeys(_ first: FrontendNodes, _ capabilities: BlockCapabilities) -> [String] {
        guard let shape = try? Shape(first, capabilities) else { return [] }
        return (0..<shape.queueCount).flatMap { queue in
            let prefix = shape.prefix(queue)
            return shape.referenceKeys.map { prefix + $0 } + [prefix + BusKeys.eventChannel]
        }
    }

    init(_ reader: inout FrontendNodeReader, _ capabilities: BlockCapabilities) throws(FrontendNodeFault) {
        let shape = try Shape(reader.keys, capabilities)
        guard let abi = BlockABI(protocolKey: reader[BlockKeys.protocol]) else {
            let text = FrontendNodes.quoted(reader[BlockKeys.protocol])
            throw FrontendNodeFault(BlockKeys.protocol, "is unknown: \(text)")
        }
        var queues: [Queue] = []
        for index in 0..<shape.queueCount {
            let prefix = shape.prefix(index)
            var references: [GrantReference] = []
            for name in shape.referenceKeys { references.append(try reader.reference(prefix + name)) }
            queues.append(Queue(references: references, port: try reader.port(prefix + BusKeys.eventChannel)))
        }
        self.abi = abi
        self.queues = queues
        usesPersistentGrants = capabilities.persistentGrants && reader[BlockKeys.featurePersistent] == "1"
    }

    /// How many queues and pages: what the common keys say.
    private struct Shape {
        let queueCount: Int
        /// nil: the single page of `ring-ref`.
        let pageOrder: Int?

        init(_ keys: FrontendNodes, _ capabilities: BlockCapabilities) throws(FrontendNodeFault) {
            if keys[BusKeys.multiQueueNumQueues] != nil {
                queueCount = Int(
                    try keys.number(BusKeys.multiQueueNumQueues, in: 1...UInt32(capabilities.maxQueues))
                )
            } else {
                queueCount = 1
            }
            if keys[BlockKeys.ringPageOrder] != nil {
                pageOrder = Int(try keys.number(BlockKeys.ringPageOrder, in: 0...UInt32(capabilities.maxRingPageOrder)))
            } else {
                pageOrder = nil
            }
        }

        /// One queue has its keys in the frontend's directory itself (blkif.h, "Multiple Queues").
        func prefix(_ queue: Int) -> String { queueCount == 1 ? "" : "\(BusKeys.queue(queue))/" }

        var referenceKeys: [String] {
            guard let pageOrder else { return [BlockKeys.ringReference] }
            return (0..<(1 << pageOrder)).map { BlockKeys.ringReference($0) }
        }
    }
}
