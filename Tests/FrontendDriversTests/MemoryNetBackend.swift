// The smallest network backend that can serve a frontend: one thread over its rings, driven by the test.

internal import Hypervisor
internal import SharedRing
internal import Synchronization
internal import SystemPackage
internal import XenWire

/// A backend for tests of frontends. What it takes from a queue's transmit ring it gives back through the same queue's
/// receive ring. It trusts the frontend and the test.
final class MemoryNetBackend: Sendable {
    /// A packet as it came.
    struct Sent: Sendable, Equatable {
        var queue: Int
        var bytes: [UInt8]
        var flags: TransmitFlags
        var segmentation: Segmentation?
        var fragments: [Int]
    }

    /// What a test can have it do.
    struct Orders: Sendable {
        var status = TransmitStatus.okay
        var reflects = true
        /// Answers with ids that were never asked for.
        var liesAboutIDs = false
        /// Written as they stand into the receive ring of queue 0: 8 bytes each.
        var responses: [WireWords] = []
        /// Bytes at the start of the page of each of them.
        var data: [UInt8] = []
    }

    let path: DevicePath
    private let hypervisor: any Hypervisor
    private let log = Mutex<[Sent]>([])
    private let stopped = Atomic(false)
    let orders = Mutex(Orders())
    let features: [(String, String)]

    var sent: [Sent] { log.withLock { $0 } }

    static let all =
        [
            "feature-sg", "feature-gso-tcpv4", "feature-gso-tcpv6", "feature-ipv6-csum-offload", "feature-rx-copy",
            "feature-split-event-channels", "feature-ctrl-ring", "feature-multicast-control",
        ].map { ($0, "1") } + [("multi-queue-max-queues", "4")]

    init(_ hypervisor: any Hypervisor, _ path: DevicePath, features: [(String, String)] = all) {
        self.hypervisor = hypervisor
        self.path = path
        self.features = features
    }

    func stop() { stopped.store(true, ordering: .relaxed) }

    func write(_ keys: [(String, String)]) async throws {
        let path = path
        try await hypervisor.store.transaction { (store) throws(HypervisorFailure) in
            for (key, value) in keys { try store.write(path.key(key), value) }
        }
    }

    func key(_ name: String) async throws -> String? { try await hypervisor.store.read(path.frontendKey(name)) }

    /// Goes to 2, waits for the frontend's 4, serves until stopped.
    func run() async throws {
        try await write(features + [("state", "2")])
        while try await key("state") != "4" { try await Task.sleep(for: .milliseconds(1)) }
        let queues = try await connect()
        let control = try await connectControl()
        try await write([("state", "4")])
        while !stopped.load(ordering: .relaxed) {
            var work = 0
            for queue in queues { work += try serve(queue) }
            if let control { work += try serve(control) }
            if work == 0 { try await Task.sleep(for: .microseconds(100)) }
        }
    }

    private final class Ring: @unchecked Sendable {
        var ring: BackRing
        let events: any EventChannels
        let port: EventChannelPort
        init(_ pages: SharedPages, _ stride: Int, _ events: any EventChannels, _ port: EventChannelPort) {
            ring = BackRing(pages: pages, stride: stride)
            self.events = events
            self.port = port
        }
        func publish() { if ring.publish() { events.notify(port) } }
    }

    private final class Queue: @unchecked Sendable {
        let index: Int
        let transmit: Ring
        let receive: Ring
        var parser = TransmitParser()
        let memory: PrivatePages
        init(_ index: Int, _ transmit: Ring, _ receive: Ring) throws {
            self.index = index
            (self.transmit, self.receive) = (transmit, receive)
            memory = try PrivatePages(byteCount: 1 << 17)
        }
    }

    private func connect() async throws -> [Queue] {
        let count = Int(try await key("multi-queue-num-queues") ?? "1")!
        var queues: [Queue] = []
        for index in 0..<count {
            let folder = count > 1 ? "queue-\(index)/" : ""
            let shared = try await key(folder + "event-channel")
            let transmit = try await key(folder + "event-channel-tx") ?? shared!
            let receive = try await key(folder + "event-channel-rx") ?? shared!
            let events = try hypervisor.openEventChannels()
            let first = try await ring(folder + "tx-ring-ref", 12, events, transmit, nil)
            let second = try await ring(folder + "rx-ring-ref", 8, events, receive, shared == nil ? nil : first.port)
            queues.append(try Queue(index, first, second))
        }
        return queues
    }

    private func connectControl() async throws -> Ring? {
        guard let port = try await key("event-channel-ctrl") else { return nil }
        return try await ring("ctrl-ring-ref", 16, hypervisor.openEventChannels(), port, nil)
    }

    private func ring(
        _ name: String,
        _ stride: Int,
        _ events: any EventChannels,
        _ port: String,
        _ bound: EventChannelPort?
    ) async throws -> Ring {
        let reference = GrantReference(UInt32(try await key(name)!)!)
        let pages = try hypervisor.grants.map([reference], of: path.domain, access: .readWrite)
        let own = try bound ?? events.bind(to: EventChannelPort(UInt32(port)!), of: path.domain)
        return Ring(pages, stride, events, own)
    }

    // MARK: packets

    private func serve(_ queue: Queue) throws -> Int {
        var work = try giveOrders(queue)
        let slot = queue.memory.slot(at: 0, byteCount: 16)
        _ = try queue.transmit.ring.poll()
        while queue.transmit.ring.waiting > 0 {
            work += 1
            queue.transmit.ring.takeNext(into: slot, count: 12)
            switch try queue.parser.feed(slot) {
            case .needsMore: continue
            case .packet: try took(queue)
            case .multicast, .dropped: break
            }
            let orders = orders.withLock { $0 }
            for slot in 0..<queue.parser.slotCount {
                var words = queue.parser.response(toSlot: slot, orders.status)
                if orders.liesAboutIDs { words.low |= 0xFF00 }
                queue.transmit.ring.put(words, count: 4)
            }
        }
        try queue.parser.ended()
        if work > 0 { queue.transmit.publish() }
        _ = try queue.transmit.ring.lastLook()
        return work
    }

    /// Fetches a packet, notes it and gives it back.
    private func took(_ queue: Queue) throws {
        var (offset, fragments) = (4096, [] as [Int])
        for index in 0..<queue.parser.fragmentCount {
            let fragment = queue.parser.fragment(index)
            let count = Int(fragment.byteCount)
            try copy(fragment.reference, Int(fragment.offset), count, into: false, queue.memory, offset)
            offset += count
            fragments.append(count)
        }
        let packet = queue.memory.slot(at: 4096, byteCount: offset - 4096)
        let sent = Sent(
            queue: queue.index,
            bytes: (0..<packet.byteCount).map { packet.u8($0) },
            flags: queue.parser.flags,
            segmentation: queue.parser.segmentation,
            fragments: fragments
        )
        log.withLock { $0.append(sent) }
        guard orders.withLock({ $0.reflects && $0.status == .okay }) else { return }
        try give(queue, packet.byteCount, sent.flags, sent.segmentation)
    }

    /// Sends the packet at 4096 of the queue's memory through its receive ring.
    private func give(_ queue: Queue, _ count: Int, _ sent: TransmitFlags, _ segmentation: Segmentation?) throws {
        var flags: ReceiveFlags = sent.contains(.checksumBlank) ? [.checksumBlank, .dataValidated] : []
        if segmentation != nil { flags.insert(.extraInfo) }
        let slots = (count + 4095) / 4096
        let slot = queue.memory.slot(at: 0, byteCount: 16)
        guard try queue.receive.ring.poll() >= slots + 1 else { return }
        for index in 0..<slots {
            queue.receive.ring.takeNext(into: slot, count: 8)
            let request = ReceiveRequest(decoding: slot)
            let size = min(4096, count - index * 4096)
            try copy(request.reference, 0, size, into: true, queue.memory, 4096 + index * 4096)
            var now = index == 0 ? flags : []
            if index < slots - 1 { now.insert(.moreData) }
            let words = ReceiveResponse.words(id: request.id, offset: 0, flags: now, status: Int16(size))
            queue.receive.ring.put(words, count: 8)
            if index == 0, let segmentation {
                queue.receive.ring.takeNext(into: slot, count: 8)
                let extra = ExtraInfo.segmentation(segmentation)
                queue.receive.ring.put(WireWords(low: extra.word(), high: 0), count: 8)
            }
        }
        queue.receive.publish()
    }

    /// Puts what the test wants into the receive ring, as it stands.
    private func giveOrders(_ queue: Queue) throws -> Int {
        guard queue.index == 0 else { return 0 }
        let (responses, data) = orders.withLock { orders in
            defer { orders.responses = [] }
            return (orders.responses, orders.data)
        }
        guard !responses.isEmpty, try queue.receive.ring.poll() >= responses.count else { return 0 }
        let slot = queue.memory.slot(at: 0, byteCount: 16)
        for response in responses {
            queue.receive.ring.takeNext(into: slot, count: 8)
            let request = ReceiveRequest(decoding: slot)
            queue.memory.write(data, at: 4096)
            if !data.isEmpty { try copy(request.reference, 0, data.count, into: true, queue.memory, 4096) }
            queue.receive.ring.put(response, count: 8)
        }
        queue.receive.publish()
        return responses.count
    }

    private func serve(_ control: Ring) throws -> Int {
        let memory = try PrivatePages(byteCount: 4096)
        let slot = memory.slot(at: 0, byteCount: 16)
        let count = Int(try control.ring.poll())
        for _ in 0..<count {
            control.ring.takeNext(into: slot, count: 16)
            let request = ControlRequest(decoding: slot)
            // What was asked for, so that the test can see it; keys by their first four bytes.
            var data = request.first
            if request.type == .setHashKey || request.type == .setHashMapping {
                try copy(GrantReference(request.first), 0, 4, into: false, memory, 64)
                data = memory.slot(at: 64, byteCount: 4).u32(0)
            }
            let status: ControlStatus = request.type == .addGrantMapping ? .notSupported : .success
            control.ring.put(ControlResponse(to: request, status, data: data).words, count: 12)
        }
        if count > 0 { control.publish() }
        _ = try control.ring.lastLook()
        return count
    }

    private func copy(
        _ reference: GrantReference,
        _ offset: Int,
        _ count: Int,
        into: Bool,
        _ pages: PrivatePages,
        _ place: Int
    ) throws {
        var batch = GrantCopyBatch(capacity: 1)
        batch.add(
            reference: reference,
            pageOffset: UInt16(offset),
            byteCount: UInt16(count),
            intoGrant: into,
            pages: pages,
            privateOffset: place
        )
        try hypervisor.grants.copy(&batch, with: path.domain)
        guard batch.status(of: 0) == .okay else { throw HypervisorFailure("copy", .ioError) }
    }
}
