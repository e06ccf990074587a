// One ring's turn: an actor on a data loop that is entered once per event or batch of completions.

internal import BackendCore
internal import HostIO
internal import Hypervisor
internal import SharedRing
internal import XenWire

/// One ring of one device.
actor BlockQueue {
    nonisolated let facts: QueueFacts
    private let alarm: BreakdownAlarm
    /// nil before `open` and after `close`.
    private var work: BlockWork?
    private var target: TargetID?
    private var port: EventChannelPort?
    /// false while draining and after a fault.
    private var isTaking = false
    private var isIdleTimerSet = false
    private var needlessEvents = 0
    private var drained: CheckedContinuation<Void, Never>?

    /// Slots of completions that are no transfers.
    private enum Timer {
        static let idleGrants = UInt32.max
        static let nextTurn = UInt32.max - 1
        static let unmask = UInt32.max - 2
    }
    /// Events without work in a row before the port is unmasked only after a pause (XSA-332).
    private static let needlessEventLimit = 64
    private static let needlessEventPause = Duration.milliseconds(1)
    /// Grants that nobody used for so long are unmapped (blkif.h, note 8; Linux's blkback does the same).
    private static let idleGrantAge = Duration.seconds(60)

    nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe facts.data.loop.asUnownedSerialExecutor() }

    init(_ facts: QueueFacts, _ alarm: BreakdownAlarm) {
        self.facts = facts
        self.alarm = alarm
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
    func open(_ opening: Opening) throws(BackendFailure) {
        var journal = opening.journal.queue(facts.index)
        let produced = opening.isTakeover ? BackRing.publishedResponses(in: opening.ring) : 0
        var unanswered: [Int] = []
        if opening.isTakeover {
            do throws(JournalFault) {
                unanswered = try journal.recover(published: produced)
            } catch {
                throw BackendFailure(.frontend, "queue \(facts.index): ring and journal disagree (\(error))")
            }
        }
        let ring = BackRing(
            pages: opening.ring,
            stride: facts.abi.requestSize,
            consumed: journal.consumed,
            produced: produced
        )
        try begin(ring, journal, opening)
        isTaking = true
        if opening.isTakeover { resume(unanswered) }
        eventTurn()
    }

    private func begin(
        _ ring: consuming BackRing,
        _ journal: consuming QueueJournal,
        _ opening: Opening
    ) throws(BackendFailure) {
        let loop = facts.data.loop
        let target = loop.attach(self)
        do {
            let indirect = try PrivatePages(byteCount: journal.slotCount * BlockWork.indirectBytes)
            port = try facts.data.bind(opening.port, of: facts.path.domain, to: self)
            self.target = target
            work = BlockWork(
                facts,
                target: target,
                ring: ring,
                journal: journal,
                indirect: indirect,
                log: opening.log
            )
            work?.medium = opening.medium
            work?.limits = opening.limits
        } catch {
            loop.detach(target)
            throw BackendFailure(.host, "queue \(facts.index): \(error)")
        }
    }

    private func resume(_ unanswered: [Int]) {
        work?.now = MonotonicClock.nanoseconds
        work?.readmit(unanswered)
        // The predecessor may have published without notifying.
        if let port { facts.data.channels.notify(port) }
    }

    /// Stops taking, and returns when all requests taken are answered and published.
    func drain() async {
        isTaking = false
        guard isBusy else { return }
        // The body looks again: a turn may come before it.
        await withCheckedContinuation { continuation in
            if isBusy { drained = continuation } else { continuation.resume() }
        }
    }

    private var isBusy: Bool { (work?.inFlight ?? 0) > 0 }

    /// Gives back port, ring and grants. Nothing may be in flight.
    func close() {
        precondition(!isBusy)
        release()
    }

    /// Drops everything as it is, for tests: what the death of the process does, between two turns. Transfers under way
    /// go on and hold the image's lock, as the kernel's would.
    func abandon() {
        isTaking = false
        release()
    }

    private func release() {
        if let target { facts.data.loop.detach(target) }
        if let port { facts.data.unbind(port) }
        facts.data.stopWaiting(self)
        target = nil
        port = nil
        work = nil
    }

    /// Puts another medium in, or none, or the same with another size.
    func replaceMedium(_ medium: BlockMedium?, _ limits: BlockLimits) {
        work?.next = BlockWork.NextMedium(medium: medium, limits: limits)
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
        facts.mark?.begin(lane: 1 + facts.index)
        defer { facts.mark?.end(lane: 1 + facts.index) }
        for position in 0..<completions.count {
            let completion = completions[position]
            switch completion.slot {
            case Timer.idleGrants: releaseIdleGrants()
            case Timer.nextTurn: isEvent = true
            case Timer.unmask: unmask()
            default:
                transfers += 1
                work?.transferEnded(Int(completion.slot), result: completion.result)
            }
        }
        if transfers > 0 { completionTurn() }
        if isEvent { eventTurn() }
    }

    private func completionTurn() {
        var notify = false
        work?.beginTurn(mayTakeBuffers: !facts.data.othersWait(before: self))
        work?.completionTurn(notify: &notify)
        afterWork(notify: notify)
    }

    private func eventTurn() {
        guard isTaking, work != nil else { return }
        facts.mark?.begin(lane: 1 + facts.index)
        defer { facts.mark?.end(lane: 1 + facts.index) }
        var notify = false
        work?.beginTurn(mayTakeBuffers: !facts.data.othersWait(before: self))
        let end = work?.turn(notify: &notify)
        afterWork(notify: notify)
        switch end {
        case .idle(let worked)?: sleep(worked: worked)
        case .more?:
            if let target { facts.data.loop.soon(target: target, slot: Timer.nextTurn) }
        case .fault(let fault)?:
            isTaking = false
            alarm.raise(.frontend("\(fault)"))
        case nil: break
        }
    }

    /// What every turn ends with.
    private func afterWork(notify: Bool) {
        let data = facts.data
        if notify, let port { data.channels.notify(port) }
        if !(work?.starved.isEmpty ?? true) { data.waitForBuffers(self) }
        if work?.takeFreedBuffers() ?? false { data.wakeWaiting() }
        if let target, !isIdleTimerSet, !(work?.cache.isEmpty ?? true) {
            isIdleTimerSet = true
            data.loop.after(BlockQueue.idleGrantAge, target: target, slot: Timer.idleGrants)
        }
        if !isTaking, !isBusy, let drained {
            self.drained = nil
            drained.resume()
        }
    }

    private func sleep(worked: Bool) {
        needlessEvents = worked ? 0 : needlessEvents + 1
        if needlessEvents > BlockQueue.needlessEventLimit, let target {
            facts.data.loop.after(BlockQueue.needlessEventPause, target: target, slot: Timer.unmask)
        } else {
            unmask()
        }
    }

    private func unmask() {
        if let port { facts.data.channels.unmask(port) }
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
    /// What a queue tells for a report.
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
        account.inFlight = work?.inFlight ?? 0
        account.mappedGrants = work?.cache.count ?? 0
        account.lastFault = work?.log.lastFault
        account.lastFailure = work?.log.lastFailure
        return account
    }
}
