// A controller's turns: an actor on a data loop, entered once per event, batch of results, or timer.

internal import BackendCore
internal import HostIO
internal import HostUSB
internal import Hypervisor
internal import SharedRing
internal import XenWire

/// The ports of one controller with their devices, and, while a frontend is connected, its rings.
///
/// The devices live on the queue's own loop: a transfer that ends is a turn of the queue, without a hop. They are there
/// before a frontend is, and stay when it goes.
actor USBQueue {
    /// The devices' slot for what is done between URBs; the slots below it are the journal's.
    static let operationSlot = UInt32(USBWire.urbSlots)
    /// How long a predecessor's device may take to come back.
    private static let returnTime = Duration.seconds(5)

    nonisolated let facts: USBQueueFacts
    let ports: [RootPort]
    let buffers: USBBuffers
    var log: FaultLog
    /// nil while no frontend is connected.
    var work: USBWork?
    var target: TargetID?
    private var alarm: BreakdownAlarm?
    private var port: EventChannelPort?
    private var patience = EventPatience()
    /// URBs wait for the frontend to see a response, and it is looked whether it has.
    private var isLooking = false
    private static let lookingPause = Duration.milliseconds(1)
    /// false while draining and after a fault.
    private var isTaking = false
    private var drained: CheckedContinuation<Void, Never>?
    /// Counters of connections that are over.
    private var past = USBMetrics()
    var watch: (any USBWatch)?
    /// Ports are looked after: false before `start` and after `stop`.
    var isStarted = false
    var left: CheckedContinuation<Void, Never>?

    /// Slots of timers.
    enum Timer {
        static let nextTurn: UInt32 = 0
        static let unmask: UInt32 = 1
        static let returning: UInt32 = 2
        static let lookAgain: UInt32 = 3
        /// Port number added.
        static let seek: UInt32 = 16
    }

    nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe facts.data.loop.asUnownedSerialExecutor() }

    init(_ facts: USBQueueFacts, log: FaultLog) throws(BackendFailure) {
        self.facts = facts
        self.log = log
        buffers = try USBBuffers()
        ports = facts.shape.ports.map { RootPort($0) }
    }

    /// What a queue is opened on.
    struct Opening: Sendable {
        let urbRing: SharedPages
        let connectionRing: SharedPages
        let journal: RequestJournal
        /// The frontend's.
        let port: EventChannelPort
        let alarm: BreakdownAlarm
        let log: FaultLog
        /// URBs of a killed predecessor are answered, its devices are awaited, and the frontend is notified once.
        let isTakeover: Bool
    }

    /// Binds the port and begins to serve.
    func open(_ opening: Opening) async throws(BackendFailure) {
        let port = try await facts.data.bind(opening.port, of: facts.path.domain, to: self, mark: facts.mark)
        do throws(BackendFailure) {
            try serve(opening, port)
        } catch {
            facts.data.unbind(port)
            throw error
        }
    }

    private func serve(_ opening: Opening, _ port: EventChannelPort) throws(BackendFailure) {
        var journal = opening.journal.queue(0)
        let produced = opening.isTakeover ? BackRing.publishedResponses(in: opening.urbRing) : 0
        var unanswered: [Int] = []
        if opening.isTakeover {
            do throws(JournalFault) {
                unanswered = try journal.recover(published: produced)
            } catch {
                throw BackendFailure(.frontend, "ring and journal disagree (\(error))")
            }
        }
        self.port = port
        let said = opening.isTakeover ? BackRing.publishedResponses(in: opening.connectionRing) : 0
        let state = opening.journal.state
        work = USBWork(
            facts,
            ports: ports,
            buffers: buffers,
            ring: BackRing(
                pages: opening.urbRing,
                stride: USBWire.urbStride,
                consumed: journal.consumed,
                produced: produced
            ),
            connections: USBConnectionRing(
                pages: opening.connectionRing,
                slot: buffers.connection,
                published: said
            ),
            journal: journal,
            memory: state,
            log: opening.log
        )
        alarm = opening.alarm
        isTaking = true
        if opening.isTakeover {
            takeOver(USBPortMemory.ports(ports.count, from: state.load()), unanswered)
        } else {
            for port in ports {
                port.disconnect()
                if let offer = port.offer { work?.events.plug(port.port, offer.speed) }
            }
        }
        eventTurn()
    }

    private func takeOver(_ memories: [USBPortMemory], _ unanswered: [Int]) {
        for (port, memory) in zip(ports, memories) {
            work?.events.restore(port.port, memory.told)
            settle(port, memory)
        }
        work?.beginTurn()
        work?.answerLost(unanswered)
        var notify = false
        work?.deliver(notify: &notify)
        // The predecessor may have published without notifying.
        if let port { facts.data.channels.notify(port) }
        if ports.contains(where: { $0.memory != nil }), let target {
            facts.data.loop.after(USBQueue.returnTime, target: target, slot: Timer.returning)
        }
    }

    /// Takes no more URBs, takes back those in flight, and returns when all are answered and published.
    /// - Parameter lasts: a successor will go on: the frontend's drivers are to try again.
    func drain(lasts: Bool) async {
        isTaking = false
        work?.beginTurn()
        work?.cancelAll(lasts ? .lost : .gone)
        completionTurn()
        guard isBusy else { return }
        // The body looks again: a turn may come before it.
        await withCheckedContinuation { continuation in
            if isBusy { drained = continuation } else { continuation.resume() }
        }
    }

    private var isBusy: Bool { (work?.inFlight ?? 0) > 0 }

    /// Gives back port and rings. The devices stay. Nothing may be in flight.
    func close() {
        precondition(!isBusy)
        if let port { facts.data.unbind(port) }
        release()
    }

    /// Drops everything as it is, for tests: what the death of the process does, between two turns.
    func abandon() {
        isTaking = false
        if let port { facts.data.abandon(port) }
        release()
        forsake()
    }

    private func release() {
        if work != nil { past.merge(work?.metrics ?? USBMetrics()) }
        port = nil
        work = nil
        alarm = nil
        for port in ports { port.disconnect() }
    }

    // MARK: reports

    /// What a queue tells for a report.
    struct Account: Sendable {
        var metrics = USBMetrics()
        var inFlight = 0
        /// By port, those that have something to tell.
        var ports: [(USBPort, String)] = []
        var lastFault: String?
        var lastFailure: String?
    }

    func account() -> Account {
        var account = Account()
        account.metrics = past
        account.lastFault = log.lastFault
        account.lastFailure = log.lastFailure
        if work != nil {
            account.metrics.merge(work?.metrics ?? USBMetrics())
            account.inFlight = work?.inFlight ?? 0
            account.lastFault = work?.log.lastFault ?? account.lastFault
            account.lastFailure = work?.log.lastFailure ?? account.lastFailure
        }
        account.ports = ports.compactMap { port in port.summary.map { (port.port, $0) } }
        return account
    }
}

// Turns: synchronous, entered by the loop.
extension USBQueue: QueueTurns, CompletionTarget {
    nonisolated func eventArrived(_ port: EventChannelPort) { assumeIsolated { $0.eventTurn() } }

    nonisolated func buffersFreed() {}

    nonisolated func completed(_ completions: borrowing CompletionBatch) {
        // The batch cannot enter the closure; its items are plain values on the stack of this call.
        assumeIsolated { $0.timersRan(completions) }
    }

    private func timersRan(_ completions: borrowing CompletionBatch) {
        for position in 0..<completions.count {
            switch completions[position].slot {
            case Timer.nextTurn: eventTurn()
            case Timer.unmask: if let port { facts.data.channels.unmask(port) }
            case Timer.returning: giveUpReturning()
            case Timer.lookAgain: lookAgain()
            case let slot: seekAgain(Int(slot &- Timer.seek))
            }
        }
    }

    private func eventTurn() {
        guard isTaking, work != nil else { return }
        facts.mark?.begin(lane: 1)
        defer { facts.mark?.end(lane: 1) }
        var notify = false
        work?.beginTurn()
        let end = work?.turn(notify: &notify)
        afterWork(notify: notify)
        switch end {
        case .idle(let worked)?: sleep(worked: worked)
        case .more?:
            if let target { facts.data.loop.soon(target: target, slot: Timer.nextTurn) }
        case .fault(let fault)?: broken(fault)
        case nil: break
        }
    }

    /// After transfers ended, or ports changed.
    func completionTurn() {
        guard work != nil else { return }
        facts.mark?.begin(lane: 1)
        defer { facts.mark?.end(lane: 1) }
        var notify = false
        work?.beginTurn()
        work?.deliver(notify: &notify)
        if isTaking {
            do throws(RingFault) {
                _ = try work?.announce(notify: &notify)
            } catch {
                broken(error)
            }
        }
        afterWork(notify: notify)
    }

    /// Queues of endpoints stand still: the frontend may have seen why.
    private func lookAgain() {
        isLooking = false
        guard isTaking, work != nil else { return }
        facts.mark?.begin(lane: 1)
        defer { facts.mark?.end(lane: 1) }
        var notify = false
        work?.beginTurn()
        do throws(RingFault) {
            _ = try work?.takeAll(notify: &notify)
        } catch {
            broken(error)
        }
        afterWork(notify: notify)
    }

    private func broken(_ fault: RingFault) {
        isTaking = false
        alarm?.raise(.frontend("\(fault)"))
    }

    /// What every turn ends with.
    private func afterWork(notify: Bool) {
        if notify, let port { facts.data.channels.notify(port) }
        if isTaking, !isLooking, work?.waitsForFrontend ?? false, let target {
            isLooking = true
            facts.data.loop.after(USBQueue.lookingPause, target: target, slot: Timer.lookAgain)
        }
        if !isTaking, !isBusy, let drained {
            self.drained = nil
            drained.resume()
        }
    }

    private func sleep(worked: Bool) {
        guard let port else { return }
        if let pause = patience.rest(worked: worked), let target {
            facts.data.loop.after(pause, target: target, slot: Timer.unmask)
        } else {
            facts.data.channels.unmask(port)
        }
    }
}
