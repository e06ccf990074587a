// What frontend and backend agreed on: rings, ports, ABI. Every number of the frontend is checked here, once.

internal import SharedRing
internal import XenWire

/// What this backend offers to every frontend, before any frontend is there.
public struct BlockOffer: Hashable, Sendable {
    /// 1 … 16.
    public let maxQueues: Int
    /// 0 … 4: rings of at most 16 pages.
    public let maxRingPageOrder: Int
    /// Whether data pages may stay mapped between requests.
    public let persistentGrants: Bool
    /// What `sector-size` says of images that are files; nil for 512. Block devices say it themselves.
    public let logicalBlockSize: Int?
    /// Segments of an indirect request: 1 MiB, described by half a page.
    public static let maxIndirectSegments = 256

    /// Values outside their range are brought into it.
    public init(
        maxQueues: Int,
        maxRingPageOrder: Int = 4,
        persistentGrants: Bool = true,
        logicalBlockSize: Int? = nil
    ) {
        self.maxQueues = min(max(maxQueues, 1), 16)
        self.maxRingPageOrder = min(max(maxRingPageOrder, 0), 4)
        self.persistentGrants = persistentGrants
        self.logicalBlockSize = logicalBlockSize
    }
}

/// A key of the frontend that makes no sense: the device is closed.
struct BlockConnectionFault: Error, Hashable, Sendable, CustomStringConvertible {
    let key: String
    let problem: String
    var description: String { "\(key) \(problem)" }
}

/// The negotiated facts of one connection; immutable.
struct BlockConnection: Hashable, Sendable {
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

    /// What makes this connection this one, for the journal.
    /// - Parameter domain: the frontend's domain as nobody else can be.
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
    static let commonKeys = [
        BusKeys.multiQueueNumQueues, BlockKeys.ringPageOrder, BlockKeys.protocol, BlockKeys.featurePersistent,
    ]

    /// Keys to read next; none if the first are wrong already. At most 16 × 17.
    static func ringKeys(_ common: [String: String], _ offer: BlockOffer) -> [String] {
        guard let shape = try? Shape(common, offer) else { return [] }
        return (0..<shape.queueCount).flatMap { queue in
            let prefix = shape.prefix(queue)
            return shape.referenceKeys.map { prefix + $0 } + [prefix + BusKeys.eventChannel]
        }
    }

    /// - Parameter keys: the values of both rounds, read once each.
    init(_ keys: [String: String], _ offer: BlockOffer) throws(BlockConnectionFault) {
        let shape = try Shape(keys, offer)
        guard let abi = BlockABI(protocolKey: keys[BlockKeys.protocol]) else {
            throw BlockConnectionFault(
                key: BlockKeys.protocol,
                problem: "is unknown: \(quoted(keys[BlockKeys.protocol]))"
            )
        }
        var seenReferences: Set<UInt32> = []
        var seenPorts: Set<UInt32> = []
        var queues: [Queue] = []
        for index in 0..<shape.queueCount {
            let prefix = shape.prefix(index)
            var references: [GrantReference] = []
            for name in shape.referenceKeys {
                let reference = try number(keys, prefix + name, in: 0...UInt32.max)
                guard seenReferences.insert(reference).inserted else {
                    throw BlockConnectionFault(key: prefix + name, problem: "repeats grant \(reference)")
                }
                references.append(GrantReference(reference))
            }
            let key = prefix + BusKeys.eventChannel
            let port = try number(keys, key, in: 1...BlockConnection.largestPort)
            guard seenPorts.insert(port).inserted else {
                throw BlockConnectionFault(key: key, problem: "repeats port \(port)")
            }
            queues.append(Queue(references: references, port: EventChannelPort(port)))
        }
        self.abi = abi
        self.queues = queues
        usesPersistentGrants = offer.persistentGrants && keys[BlockKeys.featurePersistent] == "1"
    }

    /// Ports of the FIFO ABI: 2¹⁷ (public/event_channel.h, EVTCHN_FIFO_NR_CHANNELS).
    private static let largestPort: UInt32 = (1 << 17) - 1

    /// How many queues and pages: what the common keys say.
    private struct Shape {
        let queueCount: Int
        /// nil: the single page of `ring-ref`.
        let pageOrder: Int?

        init(_ keys: [String: String], _ offer: BlockOffer) throws(BlockConnectionFault) {
            if keys[BusKeys.multiQueueNumQueues] != nil {
                queueCount = Int(
                    try number(keys, BusKeys.multiQueueNumQueues, in: 1...UInt32(offer.maxQueues))
                )
            } else {
                queueCount = 1
            }
            if keys[BlockKeys.ringPageOrder] != nil {
                pageOrder = Int(try number(keys, BlockKeys.ringPageOrder, in: 0...UInt32(offer.maxRingPageOrder)))
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

private func number(
    _ keys: [String: String],
    _ key: String,
    in range: ClosedRange<UInt32>
) throws(BlockConnectionFault) -> UInt32 {
    guard let text = keys[key] else { throw BlockConnectionFault(key: key, problem: "is missing") }
    guard let number = UInt32(decimal: text) else {
        throw BlockConnectionFault(key: key, problem: "is not a number: \(quoted(text))")
    }
    guard range.contains(number) else {
        throw BlockConnectionFault(
            key: key,
            problem: "is \(number), allowed are \(range.lowerBound) … \(range.upperBound)"
        )
    }
    return number
}

/// A frontend's text as a log line can bear it: short, printable ASCII only.
private func quoted(_ text: String?) -> String {
    let printable = (text ?? "").unicodeScalars.prefix(32).map { (0x20..<0x7F).contains($0.value) ? $0 : "?" }
    return "'\(String(String.UnicodeScalarView(printable)))'"
}
