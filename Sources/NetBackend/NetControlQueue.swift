// The control ring: settings that a frontend makes for the whole card.

internal import BackendCore
internal import HostIO
internal import Hypervisor
internal import SharedRing
internal import SystemPackage
internal import XenWire

/// Handles requests one at a time, on the loop of the card's first queue; nothing here is time critical.
final actor NetControlQueue {
    nonisolated let facts: NetQueueFacts
    private var ring: OrderedRing?
    private var memory: PrivatePages?
    private var port: QueuePort?
    private var target: TargetID?

    private static let format = SlotFormat(
        requestBytes: NetWire.controlStride,
        responseBytes: NetWire.controlResponseSize
    )
    /// Requests per turn: a frontend that never stops asking must not hog the loop.
    private static let turnRequests = 16

    /// What a completion is for.
    private enum Wake {
        static let unmask: UInt32 = 0
        static let turn: UInt32 = 1
    }

    nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe facts.data.loop.asUnownedSerialExecutor() }

    /// - Parameter facts: those of the card's first queue.
    init(_ facts: NetQueueFacts) { self.facts = facts }

    /// Binds the port and begins to serve. A request that a predecessor took is carried out again: they are all
    /// idempotent.
    func open(
        pages: SharedPages,
        port wanted: EventChannelPort,
        journal: consuming RingJournal,
        isTakeover: Bool
    ) async throws(BackendFailure) {
        do throws(JournalFault) {
            ring = try OrderedRing(pages, NetControlQueue.format, journal: journal, isTakeover: isTakeover)
        } catch {
            throw BackendFailure(.frontend, "control ring and journal disagree (\(error))")
        }
        do throws(Errno) {
            memory = try PrivatePages(byteCount: NetWire.pageSize)
        } catch {
            throw BackendFailure(.host, "control ring: \(error)")
        }
        let target = facts.data.loop.attach(self)
        self.target = target
        port = try await .bind(
            wanted,
            of: facts.path.domain,
            key: NetKeys.eventChannelControl,
            to: self,
            on: facts.data,
            wake: QueuePort.Wake(target, slot: Wake.unmask),
            mark: facts.mark.device
        )
        for _ in 0..<(ring?.unanswered ?? 0) { answer() }
        if ring?.unanswered ?? 0 > 0 { publish() }
        if isTakeover { port?.notify() }
        turn()
    }

    /// - Parameter abandons: as the death of the process does; for tests.
    func close(abandons: Bool = false) {
        if let target { facts.data.loop.detach(target) }
        if abandons { port.take()?.abandon() } else { port.take()?.close() }
        target = nil
        ring = nil
    }

    /// Handles some of what waits; the rest comes after the other queues' turns, and the port is masked until then.
    private func turn() {
        guard ring != nil else { return }
        let end = facts.data.turn(facts.mark) { serve() }
        guard let breakdown = port?.ended(end, again: Wake.turn) else { return }
        facts.latch.raise(breakdown)
        close()
    }

    private func serve() -> TurnEnd {
        do throws(Breakdown) {
            var done = 0
            while true {
                if try ring?.poll() == 0, try ring?.lastLook() == 0 { return .idle(worked: done > 0) }
                if done == NetControlQueue.turnRequests { return .more }
                _ = ring?.take()
                ring?.commit()
                answer()
                publish()
                done += 1
            }
        } catch {
            return .broken(.frontend("control ring: \(error)"))
        }
    }

    /// Carries out the request whose answer is the next to be put.
    private func answer() {
        let index = ring?.responseProducer ?? 0
        guard let slot = ring?.request(index) else { return }
        let request = ControlRequest(decoding: slot)
        let response: ControlResponse
        switch facts.shared.plan(request) {
        case .answer(let now): response = now
        case .copy(let reference, let byteCount):
            if let bytes = copy(reference, byteCount) {
                response = facts.shared.finish(request, bytes)
            } else {
                response = ControlResponse(to: request, .invalidParameter)
            }
        }
        ring?.put(response.words)
    }

    private func publish() {
        if ring?.publish() ?? false { port?.notify() }
    }

    /// The first bytes of a granted page, or nil if it cannot be read.
    private func copy(_ reference: GrantReference, _ byteCount: Int) -> Slot? {
        guard let memory else { return nil }
        facts.data.copies.add(
            reference: reference,
            pageOffset: 0,
            byteCount: UInt16(truncatingIfNeeded: byteCount),
            intoGrant: false,
            pages: memory,
            privateOffset: 0
        )
        var isGood = true
        facts.data.runCopies(facts.grants, with: facts.path.domain) { _, _ in isGood = false }
        return isGood ? memory.slot(at: 0, byteCount: byteCount) : nil
    }
}

extension NetControlQueue: QueueTurns, CompletionTarget {
    nonisolated func eventArrived(_ port: EventChannelPort) { assumeIsolated { $0.turn() } }

    nonisolated func buffersFreed() {}

    nonisolated func completed(_ completions: borrowing CompletionBatch) {
        for position in 0..<completions.count {
            let slot = completions[position].slot
            // The pause after spurious events is over, or a booked turn is due.
            assumeIsolated { if slot == Wake.unmask { $0.port?.unmask() } else { $0.turn() } }
        }
    }
}
