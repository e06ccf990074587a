// A controller's turns: an actor on a data loop, entered once per event, batch of results, or timer.

internal import BackendCore
internal import HostIO
internal import HostUSB
internal import Hypervisor
internal import SharedRing
internal import XenWire

/// The ports of one controller with their devices, and, while a frontend is connected, its rings.
///
/// The devices run on the queue's own loop: the end of a transfer is a turn of the queue, without a hop between
/// threads. They are there before any frontend, and stay when it goes.
final actor USBQueue {
    /// The devices' slot for operations between URBs; the slots below it are the journal's.
    static let operationSlot = UInt32(USBWire.urbSlots)
    /// How long a predecessor's device may take to come back.
    private static let returnTime = Duration.seconds(5)

    nonisolated let facts: USBQueueFacts
    let ports: [RootPort]
    let buffers: USBBuffers
    var log: FaultLog
    /// nil while no frontend is connected.
    var rings: USBRingState?
    var target: TargetID?
    private var latch: BreakdownLatch?
    private var port: QueuePort?
    private let gate = DrainGate()
    /// URBs wait until the frontend has seen a response; a timer checks whether it has.
    private var isLooking = false
    private static let lookingPause = Duration.milliseconds(1)
    /// false while draining and after a fault.
    private var isTaking = false
    /// Counters of connections that are over.
    private var past = USBMetrics()
    var watch: (any USBWatch)?
    /// Whether the ports are managed: false before `start` and after `stop`.
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

    /// A controller has one queue.
    private nonisolated var crashLane: CrashLane { CrashLane(facts.mark, queue: 0) }

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
        let latch: BreakdownLatch
        let log: FaultLog
        /// The The URBs of a killed predecessor are answered, its devices are awaited, and the frontend is notified
        /// once.
        let isTakeover: Bool
    }

    /// Binds the port and begins to serve. The ports are managed already.
    func open(_ opening: Opening) async throws(BackendFailure) {
        guard let target else { throw BackendFailure(.host, "the ports are not managed yet") }
        let port = try await QueuePort.bind(
            opening.port,
            of: facts.path.domain,
            to: self,
            on: facts.data,
            wake: QueuePort.Wake(target, slot: Timer.unmask),
            mark: facts.mark
        )
        do throws(BackendFailure) {
            rings = try makeRings(opening)
        } catch {
            port.close()
            throw error
        }
        self.port = consume port
        latch = opening.latch
        isTaking = true
        if opening.isTakeover {
            takeOver(USBPortMemory.ports(ports.count, from: opening.journal.state.load()))
        } else {
            for port in ports {
                port.disconnect()
                if let capabilities = port.capabilities { rings?.events.plug(port.port, capabilities.speed) }
            }
        }
        eventTurn()
    }

    private func makeRings(_ opening: Opening) throws(BackendFailure) -> USBRingState {
        let ring: SlotRing
        do throws(JournalFault) {
            ring = try SlotRing(
                opening.urbRing,
                SlotFormat(requestBytes: USBWire.urbStride, responseBytes: USBWire.urbResponseSize),
                journal: opening.journal.queue(0),
                isTakeover: opening.isTakeover
            )
        } catch {
            throw BackendFailure(.frontend, "ring and journal disagree (\(error))")
        }
        let connections = USBConnectionRing(
            pages: opening.connectionRing,
            slot: buffers.connection,
            published: opening.isTakeover ? BackRing.publishedResponses(in: opening.connectionRing) : 0
        )
        return USBRingState(
            facts,
            ports: ports,
            buffers: buffers,
            ring: ring,
            connections: connections,
            memory: opening.journal.state,
            log: opening.log
        )
    }

    private func takeOver(_ memories: [USBPortMemory]) {
        for (port, memory) in zip(ports, memories) {
            rings?.events.restore(port.port, memory.told)
            readopt(port, memory)
        }
        facts.data.turn(crashLane) {
            var notify = false
            rings?.beginTurn()
            rings?.answerLost()
            rings?.deliver(notify: &notify)
        }
        // The predecessor may have published without notifying.
        port?.notify()
        if ports.contains(where: { $0.memory != nil }), let target {
            facts.data.loop.after(USBQueue.returnTime, target: target, slot: Timer.returning)
        }
    }

    /// Takes no more URBs, cancels those in flight, and returns when all are answered and published.
    /// - Parameter lasts: a successor will take over: the frontend's drivers are to try again.
    func drain(lasts: Bool) async {
        isTaking = false
        facts.data.turn(crashLane) {
            rings?.beginTurn()
            rings?.cancelAll(lasts ? .lost : .gone)
        }
        completionTurn()
        await gate.wait { isBusy }
    }

    private var isBusy: Bool { (rings?.inFlight ?? 0) > 0 }

    /// Releases port and rings. The devices stay. Nothing may be in flight.
    func close() {
        precondition(!isBusy)
        port.take()?.close()
        dropRings()
    }

    /// Drops everything as it is, as the death of the process between two turns does; for tests.
    func abandon() {
        isTaking = false
        port.take()?.abandon()
        dropRings()
        leaveDevices()
    }

    private func dropRings() {
        if rings != nil { past.merge(rings?.metrics ?? USBMetrics()) }
        rings = nil
        latch = nil
        for port in ports { port.disconnect() }
    }

    // MARK: reports

    /// A queue's part of a report.
    struct Account: Sendable {
        var metrics = USBMetrics()
        var inFlight = 0
        /// By port, those that have something to report.
        var ports: [PortReport] = []
        var lastFault: String?
        var lastFailure: String?
    }

    func account() -> Account {
        var account = Account()
        account.metrics = past
        account.lastFault = log.lastFault
        account.lastFailure = log.lastFailure
        if rings != nil {
            account.metrics.merge(rings?.metrics ?? USBMetrics())
            account.inFlight = rings?.inFlight ?? 0
            account.lastFault = rings?.log.lastFault ?? account.lastFault
            account.lastFailure = rings?.log.lastFailure ?? account.lastFailure
        }
        account.ports = ports.compactMap(\.report)
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
            case Timer.unmask: port?.unmask()
            case Timer.returning: giveUpReturning()
            case Timer.lookAgain: lookAgain()
            case let slot: seekAgain(Int(slot &- Timer.seek))
            }
        }
    }

    private func eventTurn() {
        guard isTaking else { return }
        facts.data.turn(crashLane) {
            var notify = false
            rings?.beginTurn()
            guard let end = rings?.turn(notify: &notify) else { return }
            afterWork(notify: notify)
            if let breakdown = port?.ended(end, again: Timer.nextTurn) { broken(breakdown) }
        }
    }

    /// After transfers ended, or ports changed.
    func completionTurn() {
        guard rings != nil else { return }
        facts.data.turn(crashLane) {
            var notify = false
            rings?.beginTurn()
            rings?.deliver(notify: &notify)
            if isTaking {
                do throws(Breakdown) { _ = try rings?.announce(notify: &notify) } catch { broken(error) }
            }
            afterWork(notify: notify)
        }
    }

    /// Queues of endpoints are halted: the frontend may have seen the reason by now.
    private func lookAgain() {
        isLooking = false
        guard isTaking, rings != nil else { return }
        facts.data.turn(crashLane) {
            var notify = false
            rings?.beginTurn()
            do throws(Breakdown) { _ = try rings?.takeAll(notify: &notify) } catch { broken(error) }
            afterWork(notify: notify)
        }
    }

    private func broken(_ breakdown: Breakdown) {
        isTaking = false
        latch?.raise(breakdown)
    }

    /// The end of every turn.
    private func afterWork(notify: Bool) {
        if notify { port?.notify() }
        if isTaking, !isLooking, rings?.waitsForFrontend ?? false, let target {
            isLooking = true
            facts.data.loop.after(USBQueue.lookingPause, target: target, slot: Timer.lookAgain)
        }
        if !isTaking, !isBusy { gate.pass() }
    }
}
