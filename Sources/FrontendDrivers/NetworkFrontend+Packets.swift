// What a network frontend can be asked to do while it is connected.

internal import Hypervisor
public import SharedRing
public import XenWire

extension NetworkFrontend {
    // MARK: sending

    /// Sends a packet on a queue; waits for room in the ring, not for the answer.
    /// - Parameter bytes: from the destination address on; at most 65535.
    public func send(
        _ bytes: [UInt8],
        _ frame: NetworkFrame = NetworkFrame(),
        queue index: Int = 0
    ) async throws(FrontendFailure) {
        let queue = try await queue(index, for: frame, bytes.count)
        queue.staging.write(bytes, at: 0)
        _ = queue.put(frame, queue.staging, at: 0, count: bytes.count)
        queue.push()
    }

    /// Sends a packet and waits for the answer to all its slots.
    /// - Returns: the worst of them: a `TransmitStatus`, or whatever the backend sent.
    public func sendAndWait(
        _ bytes: [UInt8],
        _ frame: NetworkFrame = NetworkFrame(),
        queue index: Int = 0
    ) async throws(FrontendFailure) -> Int16 {
        while true {
            let queue = try await queue(index, for: frame, bytes.count)
            // Other senders may come in before the continuation is made.
            let outcome = await withCheckedContinuation { continuation in
                queue.staging.write(bytes, at: 0)
                if queue.put(frame, queue.staging, at: 0, count: bytes.count, answer: continuation) {
                    queue.push()
                } else {
                    continuation.resume(returning: queue.isClosed ? .closed : .noRoom)
                }
            }
            switch outcome {
            case .answered(let status): return status
            case .closed: throw .closed
            case .noRoom: continue
            }
        }
    }

    /// Sends up to `count` packets, as many as there is room for, with one push and at most one event.
    /// - Parameters:
    ///   - byteCount: bytes of each packet.
    ///   - fill: writes packet `n` of this call into the slot, all `byteCount` bytes.
    /// - Returns: how many were sent.
    public func sendBurst(
        _ count: Int,
        byteCount: Int,
        _ frame: NetworkFrame = NetworkFrame(),
        queue index: Int = 0,
        _ fill: @Sendable (Int, Slot) -> Void
    ) throws(FrontendFailure) -> Int {
        let queue = try queue(index)
        try check(frame, byteCount)
        var sent = 0
        while sent < count, queue.hasRoom(for: frame, byteCount) {
            fill(sent, queue.staging.slot(at: 0, byteCount: byteCount))
            _ = queue.put(frame, queue.staging, at: 0, count: byteCount)
            sent += 1
        }
        if sent > 0 { queue.push() }
        return sent
    }

    /// Waits until a packet like this one can be sent.
    public func waitForRoom(
        byteCount: Int,
        _ frame: NetworkFrame = NetworkFrame(),
        queue index: Int = 0
    ) async throws(FrontendFailure) {
        _ = try await queue(index, for: frame, byteCount)
    }

    /// Subscribes to a multicast address, or unsubscribes.
    /// - Returns: the backend's answer.
    public func multicast(_ request: MulticastRequest, queue index: Int = 0) async throws(FrontendFailure) -> Int16 {
        var frame = NetworkFrame()
        switch request {
        case .add(let address): frame.extras = [.multicastAdd(address)]
        case .delete(let address): frame.extras = [.multicastDelete(address)]
        }
        return try await sendAndWait([UInt8](repeating: 0, count: NetWire.minFirstSize), frame, queue: index)
    }

    private func queue(_ index: Int) throws(FrontendFailure) -> NetworkFrontQueue {
        guard connection != nil, queues.indices.contains(index) else { throw .closed }
        return queues[index]
    }

    private func queue(
        _ index: Int,
        for frame: NetworkFrame,
        _ byteCount: Int
    ) async throws(FrontendFailure) -> NetworkFrontQueue {
        try check(frame, byteCount)
        while true {
            let queue = try queue(index)
            if queue.hasRoom(for: frame, byteCount) { return queue }
            await withCheckedContinuation { queue.waitForRoom(frame, byteCount, $0) }
        }
    }

    /// Refuses what Linux's netfront never sends. (The hostile frontend can send it.)
    private func check(_ frame: NetworkFrame, _ byteCount: Int) throws(FrontendFailure) {
        guard let connection else { throw .closed }
        guard byteCount <= NetWire.maxPacket else { throw .unsupported("packets of \(byteCount) bytes") }
        let slots = frame.slotCount(byteCount)
        guard slots <= (connection.scatterGather ? NetWire.maxSlotsPerPacket : 1), slots <= options.transmitBuffers
        else { throw .unsupported("packets in \(slots) slots") }
        if let kind = frame.segmentation?.kind, !connection.segmentations.contains(kind) {
            throw .unsupported("segmentation of \(kind)")
        }
    }

    // MARK: receiving

    /// Passes every packet to `receiver` instead of keeping it for `nextPacket`; nil: keeps them again.
    public func setReceiver(_ receiver: Receiver?) { self.receiver = receiver }

    /// The oldest packet that was kept, or the next to come.
    /// - Returns: nil if none comes within `limit`, or the connection ends.
    public func nextPacket(within limit: Duration = .seconds(5)) async -> ReceivedPacket? {
        if let packet = inbox.takeFirst() { return packet }
        guard connection != nil else { return nil }
        let number = inbox.number()
        let alarm = Task {
            try? await Task.sleep(for: limit)
            inbox.giveUp(number)
        }
        defer { alarm.cancel() }
        return await withCheckedContinuation { inbox.wait(number, $0) }
    }

    /// Stops or resumes posting pages for received packets. Those already posted stay.
    public func setPosting(_ posts: Bool) {
        for queue in queues {
            queue.postsBuffers = posts
            queue.post()
        }
    }

    /// What each queue counted.
    public var statistics: [NetworkFrontendStatistics] { queues.map(\.statistics) }

    // MARK: the control ring

    /// Sends a control request and waits for its answer.
    /// - Parameter page: put at the start of a granted page, whose reference then stands for `first`.
    public func control(
        _ type: ControlType,
        _ first: UInt32 = 0,
        _ second: UInt32 = 0,
        _ third: UInt32 = 0,
        page: [UInt8]? = nil
    ) async throws(FrontendFailure) -> ControlResponse {
        guard let control else { throw .unsupported(NetKeys.featureControlRing) }
        guard let response = await control.perform(type, [first, second, third], page) else { throw .closed }
        return response
    }

    /// Has received packets hashed with this key and spread by this mapping (empty: modulo queues).
    /// - Throws: `answered` if the backend refuses a step.
    public func setHash(
        types: HashTypes,
        key: [UInt8],
        mapping: [UInt32] = []
    ) async throws(FrontendFailure) {
        var entries: [UInt8] = []
        for entry in mapping {
            for shift in [0, 8, 16, 24] { entries.append(UInt8(truncatingIfNeeded: entry >> shift)) }
        }
        var answers = [
            try await control(.setHashAlgorithm, HashAlgorithm.toeplitz.rawValue),
            try await control(.setHashKey, 0, UInt32(key.count), page: key),
            try await control(.setHashMappingSize, UInt32(mapping.count)),
        ]
        if !mapping.isEmpty {
            answers.append(try await control(.setHashMapping, 0, UInt32(mapping.count), 0, page: entries))
        }
        answers.append(try await control(.setHashFlags, types.rawValue))
        for answer in answers where answer.status != ControlStatus.success.rawValue {
            throw .refused(answer)
        }
    }
}

/// Packets that were not asked for yet, or callers that wait for one; never both.
struct NetworkInbox {
    private var packets: [ReceivedPacket] = []
    private var taken = 0
    private var waiters: [(number: Int, continuation: CheckedContinuation<ReceivedPacket?, Never>)] = []
    private var lastNumber = 0

    /// - Returns: false if there was no room.
    mutating func keep(_ packet: NetworkPacket, _ capacity: Int) -> Bool {
        if !waiters.isEmpty {
            waiters.removeFirst().continuation.resume(returning: packet.received)
            return true
        }
        guard packets.count - taken < capacity else { return false }
        packets.append(packet.received)
        return true
    }

    mutating func takeFirst() -> ReceivedPacket? {
        guard taken < packets.count else { return nil }
        defer {
            taken += 1
            if taken == packets.count {
                packets.removeAll(keepingCapacity: true)
                taken = 0
            }
        }
        return packets[taken]
    }

    mutating func number() -> Int {
        lastNumber += 1
        return lastNumber
    }

    /// A packet may have arrived since `takeFirst`, while the continuation was made.
    mutating func wait(_ number: Int, _ continuation: CheckedContinuation<ReceivedPacket?, Never>) {
        if let packet = takeFirst() {
            continuation.resume(returning: packet)
        } else {
            waiters.append((number, continuation))
        }
    }

    mutating func giveUp(_ number: Int) {
        guard let index = waiters.firstIndex(where: { $0.number == number }) else { return }
        waiters.remove(at: index).continuation.resume(returning: nil)
    }

    mutating func close() {
        let left = waiters
        waiters = []
        for waiter in left { waiter.continuation.resume(returning: nil) }
    }
}
