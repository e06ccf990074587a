// One ring's turn: an actor on a data loop that is entered once per event or batch of completions.

internal import BackendCore
internal import HostIO
internal import Hypervisor
internal import SharedRing
internal import SystemPackage
internal import XenWire

/// One ring of one device.
final actor BlockQueue {
    nonisolated let facts: BlockQueueFacts
    private let latch: BreakdownLatch
    /// nil before `open` and after `close`.
    private var work: BlockRingState?
    private var target: TargetID?
    private var port: QueuePort?
    /// false while draining and after a fault.
    private var isTaking = false
    private var isIdleTimerSet = false
    private let drained = DrainGate()

    /// Completion slots that are not transfers.
    private enum Timer {
        static let idleGrants = UInt32.max
        static let nextTurn = UInt32.max - 1
        static let unmask = UInt32.max - 2
    }
    /// Grants unused for this long are unmapped (blkif.h, note 8; Linux's blkback does the same).
    private static let idleGrantAge = Duration.seconds(60)

    nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe facts.data.loop.asUnownedSerialExecutor() }

    init(_ facts: BlockQueueFacts, _ latch: BreakdownLatch) {
        self.facts = facts
        self.latch = latch
    }

    /// What a queue is opened on.
    struct Opening: Sendable {
        let ring: SharedPages
        let journal: RequestJournal
        /// The frontend's port.
        let port: EventChannelPort
        let medium: BlockMedium?
        let limits: BlockLimits
        let log: FaultLog
        /// Requests of a killed predecessor are run first, and the frontend is notified once.
        let isTakeover: Bool
    }

    /// Binds the port and begins to serve.
    func open(_ opening: Opening) async throws(BackendFailure) {
        let target = facts.data.loop.attach(self)
        self.target = target
        port = try await QueuePort.bind(
            opening.port,
            of: facts.path.domain,
            to: self,
            on: facts.data,
            wake: QueuePort.Wake(target, slot: Timer.unmask),
            mark: facts.mark.device
        )
        work = try makeWork(opening, target)
        isTaking = true
        if opening.isTakeover { resume() }
        eventTurn()
    }

    private func makeWork(_ opening: Opening, _ target: TargetID) throws(BackendFailure) -> BlockRingState {
        let ring: SlotRing
        do throws(JournalFault) {
            ring = try SlotRing(
                opening.ring,
                SlotFormat(requestBytes: facts.abi.requestSize, responseBytes: facts.abi.responseSize),
                journal: opening.journal.queue(facts.index),
                isTakeover: opening.isTakeover
            )
        } catch {
            throw BackendFailure(.frontend, "queue \(facts.index): ring and journal disagree (\(error))")
        }
        let indirect: PrivatePages
        do throws(Errno) {
            indirect = try PrivatePages(byteCount: ring.slotCount * BlockRingState.indirectBytes)
        } catch {
            throw BackendFailure(.host, "queue \(facts.index): no memory for indirect requests: \(error)")
        }
        var work = BlockRingState(facts, target: target, ring: ring, indirect: indirect, log: opening.log)
        work.medium = opening.medium
        work.limits = opening.limits
        return work
    }

    private func resume() {
        facts.data.turn(facts.mark) {
            work?.now = MonotonicClock.nanoseconds
            work?.readmit()
        }
        // The predecessor may have published without notifying.
        port?.notify()
    }

    /// Stops taking, and returns when all requests taken are answered and published.
    func drain() async {
        isTaking = false
        await drained.wait { isBusy }
    }

    private var isBusy: Bool { (work?.ring.inFlight ?? 0) > 0 }

    /// Gives back port, ring and grants. Nothing may be in flight.
    func close() {
        precondition(!isBusy)
        port.take()?.close()
        release()
    }

    /// Drops everything as it is, as the death of the process between two turns does; for tests. Transfers in flight go
    /// on and hold the image's lock, as the kernel's would.
    func abandon() {
        isTaking = false
        port.take()?.abandon()
        release()
    }

    private func release() {
        if let target { facts.data.loop.detach(target) }
        facts.data.stopWaiting(self)
        target = nil
        work = nil
    }

    /// Inserts another medium, or none, or the same one with a new size.
    func replaceMedium(_ medium: BlockMedium?, _ limits: BlockLimits) {
        work?.next = BlockRingState.NextMedium(medium: medium, limits: limits)
        completionTurn()
    }
}

// Turns: synchronous, entered by the loop.
extension BlockQueue: QueueTurns, CompletionTarget {
    nonisolated func eventArrived(_ port: EventChannelPort) { assumeIsolated { $0.eventTurn() } }

    nonisolated func buffersFreed() {
        assumeIsolated {
            $0.completionTurn()
            if $0.work?.starved.isEmpty ?? true { $0.facts.data.stopWaiting($0) }
        }
    }

    nonisolated func completed(_ completions: borrowing CompletionBatch) {
        // The batch cannot enter the closure; its items are plain values on the stack of this call.
        assumeIsolated { $0.completionsArrived(completions) }
    }

    private func completionsArrived(_ completions: borrowing CompletionBatch) {
        var transfers = 0
        var isEvent = false
        facts.mark.during {
            for position in 0..<completions.count {
                let completion = completions[position]
                switch completion.slot {
                case Timer.idleGrants: releaseIdleGrants()
                case Timer.nextTurn: isEvent = true
                case Timer.unmask: port?.unmask()
                default:
                    transfers += 1
                    work?.transferEnded(Int(completion.slot), result: completion.result)
                }
            }
        }
        if transfers > 0 { completionTurn() }
        if isEvent { eventTurn() }
    }

    private func completionTurn() {
        let notify = facts.data.turn(facts.mark) {
            var notify = false
            work?.beginTurn(mayTakeBuffers: !facts.data.othersWait(before: self))
            work?.completionTurn(notify: &notify)
            return notify
        }
        afterWork(notify: notify)
    }

    private func eventTurn() {
        guard isTaking, work != nil else { return }
        var notify = false
        let end = facts.data.turn(facts.mark) {
            work?.beginTurn(mayTakeBuffers: !facts.data.othersWait(before: self))
            return work?.turn(notify: &notify)
        }
        afterWork(notify: notify)
        if let end, let breakdown = port?.ended(end, again: Timer.nextTurn) {
            isTaking = false
            latch.raise(breakdown)
        }
    }

    /// The end of every turn.
    private func afterWork(notify: Bool) {
        let data = facts.data
        if notify { port?.notify() }
        if !(work?.starved.isEmpty ?? true) { data.waitForBuffers(self) }
        if work?.takeFreedBuffers() ?? false { data.wakeWaiting() }
        if let target, !isIdleTimerSet, !(work?.cache.isEmpty ?? true) {
            isIdleTimerSet = true
            data.loop.after(BlockQueue.idleGrantAge, target: target, slot: Timer.idleGrants)
        }
        if !isTaking, !isBusy { drained.pass() }
    }

    private func releaseIdleGrants() {
        isIdleTimerSet = false
        let age = UInt64(BlockQueue.idleGrantAge.components.seconds) &* 1_000_000_000
        let now = MonotonicClock.nanoseconds
        if now > age { work?.cache.release(unusedSince: now &- age) }
        afterWork(notify: false)
    }
}

// Reports.
extension BlockQueue {
    /// A queue's part of a report.
    struct Account: Sendable {
        var metrics = BlockMetrics()
        var inFlight = 0
        var mappedGrants = 0
        var lastFault: String?
        var lastFailure: String?
    }

    func account() -> Account {
        var account = Account()
        if work == nil { return account }
        account.metrics = work?.metrics ?? BlockMetrics()
        account.inFlight = work?.ring.inFlight ?? 0
        account.mappedGrants = work?.cache.count ?? 0
        account.lastFault = work?.log.lastFault
        account.lastFailure = work?.log.lastFailure
        return account
    }
}
