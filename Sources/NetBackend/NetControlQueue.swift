// The control ring: settings that a frontend makes for the whole card.

internal import BackendCore
internal import HostIO
internal import Hypervisor
internal import SharedRing
internal import SystemPackage
internal import XenWire

/// Handles one request after the other, on the loop of the card's first queue; nothing here is time critical.
actor NetControlQueue {
    nonisolated let facts: NetQueueFacts
    private var ring: BackRing?
    private var journal: RingJournal?
    private var memory: PrivatePages?
    private var port: EventChannelPort?
    private var target: TargetID?
    private var patience = EventPatience()
    /// The next turn is booked, behind what else the loop has to do.
    private var isBooked = false

    /// Requests of one turn: a frontend that never stops asking must not keep the loop.
    private static let turnRequests = 16

    /// What a completion tells of.
    private enum Wake {
        static let unmask: UInt32 = 0
        static let turn: UInt32 = 1
    }

    nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe facts.data.loop.asUnownedSerialExecutor() }

    /// - Parameter facts: those of the card's first queue.
    init(_ facts: NetQueueFacts) { self.facts = facts }

    /// Binds the port and begins to serve. A request that a predecessor took is answered again: each sets what it says.
    func open(
        pages: SharedPages,
        port wanted: EventChannelPort,
        journal: consuming RingJournal,
        isTakeover: Bool
    ) async throws(BackendFailure) {
        let produced = isTakeover ? BackRing.publishedResponses(in: pages) : 0
        let unanswered: UInt32
        do throws(JournalFault) {
            unanswered = isTakeover ? try journal.unanswered(published: produced) : 0
        } catch {
            throw BackendFailure(.frontend, "control ring and journal disagree (\(error))")
        }
        ring = BackRing(
            pages: pages,
            stride: NetWire.controlStride,
            consumed: produced &+ unanswered,
            produced: produced
        )
        self.journal = consume journal
        do throws(Errno) {
            memory = try PrivatePages(byteCount: NetWire.pageSize)
        } catch {
            throw BackendFailure(.host, "control ring: \(error)")
        }
        target = facts.data.loop.attach(self)
        port = try await facts.data.bind(wanted, of: facts.path.domain, to: self, mark: facts.mark)
        for _ in 0..<unanswered { answer() }
        if unanswered > 0 { publish() }
        if isTakeover, let port { facts.data.channels.notify(port) }
        turn()
    }

    /// - Parameter abandons: for tests: as the death of the process does.
    func close(abandons: Bool = false) {
        if let target { facts.data.loop.detach(target) }
        if let port {
            if abandons { facts.data.abandon(port) } else { facts.data.unbind(port) }
        }
        target = nil
        port = nil
        ring = nil
    }

    /// Handles some of what waits; the rest comes after the other queues' turns.
    /// - Returns: whether there was anything.
    @discardableResult
    private func turn() -> Bool {
        var done = 0
        guard !isBooked else { return false }
        do throws(RingFault) {
            while ring != nil {
                if try ring?.poll() == 0, try ring?.lastLook() == 0 { break }
                if done == NetControlQueue.turnRequests, let target {
                    isBooked = true
                    facts.data.loop.soon(target: target, slot: Wake.turn)
                    break
                }
                take()
                answer()
                publish()
                done += 1
            }
        } catch {
            facts.alarm.raise(.frontend("control ring: \(error)"))
            close()
        }
        return done > 0
    }

    private func take() {
        guard let slot = journal?.slot(ring?.requestConsumer ?? 0) else { return }
        ring?.takeNext(into: slot, count: NetWire.controlStride)
        journal?.commit(consumed: ring?.requestConsumer ?? 0)
    }

    /// Carries out the request whose answer is the next to be put.
    private func answer() {
        guard let slot = journal?.slot(ring?.responseProducer ?? 0) else { return }
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
        ring?.put(response.words, count: NetWire.controlResponseSize)
    }

    private func publish() {
        if ring?.publish() ?? false, let port { facts.data.channels.notify(port) }
    }

    /// The first bytes of a granted page, or nil if it cannot be read.
    private func copy(_ reference: GrantReference, _ byteCount: Int) -> Slot? {
        guard let memory else { return nil }
        var batch = GrantCopyBatch(capacity: 1)
        batch.add(
            reference: reference,
            pageOffset: 0,
            byteCount: UInt16(truncatingIfNeeded: byteCount),
            intoGrant: false,
            pages: memory,
            privateOffset: 0
        )
        do throws(HypervisorFailure) {
            try facts.grants.copy(&batch, with: facts.path.domain)
        } catch {
            return nil
        }
        return batch.status(of: 0) == .okay ? memory.slot(at: 0, byteCount: byteCount) : nil
    }
}

extension NetControlQueue: QueueTurns, CompletionTarget {
    nonisolated func eventArrived(_ port: EventChannelPort) { assumeIsolated { $0.event() } }

    nonisolated func buffersFreed() {}

    nonisolated func completed(_ completions: borrowing CompletionBatch) {
        for position in 0..<completions.count {
            let slot = completions[position].slot
            assumeIsolated { $0.timeIsUp(slot) }
        }
    }

    /// The pause after spurious events is over, or a booked turn is due.
    private func timeIsUp(_ slot: UInt32) {
        if slot == Wake.unmask { return unmask() }
        isBooked = false
        turn()
    }

    private func event() {
        if let pause = patience.rest(worked: turn()), let target {
            facts.data.loop.after(pause, target: target, slot: Wake.unmask)
        } else {
            unmask()
        }
    }

    private func unmask() {
        if let port { facts.data.channels.unmask(port) }
    }
}
