// A guest's cards and the page through which it reaches them: an actor on a loop of its own, entered once per event.

internal import BackendCore
internal import HostIO
internal import HostPCI
internal import Hypervisor
internal import SharedRing
internal import XenWire

/// The cards of one guest and, while a frontend is connected, the shared page.
///
/// A configuration access is a system call that usually takes microseconds and that may hang with the card. It is made where
/// the event arrives, without a detour over another thread, and so the loop is nobody else's. Cards are there before a
/// frontend is, and stay when it goes.
final actor PCIQueue {
    nonisolated let facts: PCIQueueFacts
    var cards: [PCIGuestCard] = []
    var bus: PCIVirtualBus
    var log: FaultLog
    var metrics = PCIMetrics()
    /// nil while no frontend is connected.
    var page: SharedPages?
    var memory: JournalState?
    var errors = PCIErrorReports()
    /// The one operation, in private memory: the only copy that is ever looked at.
    let operation: PrivatePages
    private var target: TargetID?
    private var port: QueuePort?
    /// false while draining.
    private var isTaking = false

    /// Slots of timers.
    private enum Timer {
        static let nextTurn: UInt32 = 0
        static let unmask: UInt32 = 1
    }
    /// Operations before others of the loop, timers and closing, get their turn.
    private static let roundLimit = 64
    /// When an operation was last measured, or the looking for one ended.
    private var clock: UInt64 = 0
    private var poll = PollWindow()

    private nonisolated var crashLane: CrashLane { CrashLane(facts.mark, queue: 0) }

    nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe facts.data.loop.asUnownedSerialExecutor() }

    init(_ facts: PCIQueueFacts, _ mode: PCIBusMode, log: FaultLog) throws(BackendFailure) {
        self.facts = facts
        self.log = log
        bus = PCIVirtualBus(mode)
        do { operation = try PrivatePages(byteCount: 4096) } catch {
            throw BackendFailure(.host, "no memory for an operation: \(error)")
        }
    }

    // MARK: cards

    /// Gives the guest a card.
    /// - Parameter published: its `vdev-N`, if the guest has been told one.
    /// - Returns: where the guest sees it.
    func add(_ card: PCIGuestCard, published: PCIAddress?) throws(PCIBusFault) -> PCIAddress {
        let isVirtualFunction = card.card.facts.physicalFunction != nil
        let place = try bus.add(card.address, isVirtualFunction: isVirtualFunction, published: published)
        cards.append(card)
        remember()
        return place
    }

    /// Takes a card from the guest, and gives it back to the host.
    func remove(_ address: PCIAddress) {
        guard let index = cards.firstIndex(where: { $0.address == address }) else { return }
        crashLane.during {
            quiet(index)
            let card = cards.remove(at: index)
            bus.remove(address)
            remember()
            giveBack(card)
        }
    }

    /// Gives back a card for which there was no place.
    func discard(_ card: PCIGuestCard) { giveBack(card) }

    /// Takes all cards away, in the reverse of their order.
    func removeAll() {
        while let last = cards.last { remove(last.address) }
    }

    /// Leaves all cards as they are, for a successor.
    func leaveCards() {
        cards = []
        bus = PCIVirtualBus(bus.mode)
    }

    var roots: [PCIRoot] { bus.roots }

    /// Where the guest sees its cards.
    func places() -> [(host: PCIAddress, guest: PCIAddress)] { bus.cards.map { ($0.host, $0.guest) } }

    // MARK: the page

    /// What a queue is opened on.
    struct Opening: Sendable {
        let page: SharedPages
        /// The frontend's.
        let port: EventChannelPort
        let journal: RequestJournal
        let log: FaultLog
        /// The guest goes on with what it has.
        let isTakeover: Bool
        /// Whether the journal has what the predecessor knew.
        let hasMemory: Bool
    }

    /// Binds the port and begins to serve.
    func open(_ opening: Opening) async throws(BackendFailure) {
        let target: TargetID
        if let attached = self.target { target = attached } else { target = facts.data.loop.attach(self) }
        self.target = target
        port = try await QueuePort.bind(
            opening.port,
            of: facts.path.domain,
            to: self,
            on: facts.data,
            wake: QueuePort.Wake(target, slot: Timer.unmask),
            mark: facts.mark
        )
        log = opening.log
        page = opening.page
        memory = opening.journal.state
        isTaking = true
        crashLane.during {
            if opening.isTakeover {
                takeOver(opening.hasMemory ? PCICardMemory.cards(from: opening.journal.state.load()) : nil)
            } else {
                for index in cards.indices { cards[index].forgetGuest() }
            }
            remember()
        }
        // An operation that a predecessor did not answer has no event any more.
        eventTurn()
    }

    /// Takes no more operations; with that the last one is answered.
    /// - Parameter lasts: a successor will go on: what the guest has, it keeps.
    func drain(lasts: Bool) {
        isTaking = false
        guard !lasts, page != nil else { return }
        crashLane.during {
            for index in cards.indices.reversed() { quiet(index) }
            remember()
        }
    }

    /// Gives back port and page. The cards stay.
    func close() {
        port.take()?.close()
        errors.forget()
        release()
    }

    /// Drops everything as it is, for tests: what the death of the process does.
    func abandon() {
        isTaking = false
        port.take()?.abandon()
        release()
        leaveCards()
    }

    private func release() {
        if let target { facts.data.loop.detach(target) }
        target = nil
        page = nil
        memory = nil
    }

    func notifyFrontend() {
        port?.notify()
        metrics.notificationsSent &+= 1
    }

    // MARK: reports

    /// A queue's part of a report.
    struct Account: Sendable {
        var metrics = PCIMetrics()
        var functions: [FunctionReport] = []
        var lastFault: String?
        var lastFailure: String?
    }

    func account() -> Account {
        var account = Account()
        account.metrics = metrics
        account.lastFault = log.lastFault
        account.lastFailure = log.lastFailure
        account.functions = cards.map { card in
            let guest = bus.guest(of: card.address).map { "\($0)" } ?? "nowhere"
            return FunctionReport(
                "\(card.address)",
                .served(guest: guest, interrupts: card.interruptText, isPermissive: card.options.permissive)
            )
        }
        return account
    }

    /// Keeps what a successor must know.
    /// - Parameter stage: of a card whose interrupts change.
    func remember(_ stage: PCICardMemory.Stage = .settled, of index: Int? = nil) {
        guard let memory else { return }
        let cards = cards.enumerated().map { PCICardMemory($0.element, $0.offset == index ? stage : .settled) }
        memory.save(PCICardMemory.bytes(of: cards))
    }
}

// Turns: synchronous, entered by the loop.
extension PCIQueue: QueueTurns, CompletionTarget {
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
            default: port?.unmask()
            }
        }
    }

    /// A turn lasts until the frontend has asked for nothing for a moment (`PollWindow`), but no longer than `roundLimit`.
    private func eventTurn() {
        guard isTaking, let page else { return }
        metrics.turns &+= 1
        if isAsked(page) {
            let now = MonotonicClock.nanoseconds
            poll.woke(after: now &- clock)
            clock = now
        }
        var rounds = 0
        var worked = false
        repeat {
            facts.data.turn(crashLane) {
                rounds = takeOperations(page, after: rounds)
                worked = takeErrorAnswer(page) || worked || rounds > 0
            }
            // Looking on is outside of the turn: who is killed meanwhile was not killed by this device.
        } while rounds > 0 && rounds < PCIQueue.roundLimit && looksOn(page)
        if !worked { metrics.idleTurns &+= 1 }
        _ = port?.ended(rounds < PCIQueue.roundLimit ? .idle(worked: worked) : .more, again: Timer.nextTurn)
    }

    private func isAsked(_ page: SharedPages) -> Bool {
        page.loadAcquire(at: PCIWire.flagsOffset) & PCIWire.frontendActive != 0
    }

    /// Of operations in a row the first and every eighth are measured: a look at the clock can be a system call.
    /// - Parameter rounds: operations of this turn before.
    /// - Returns: operations of this turn by now.
    private func takeOperations(_ page: SharedPages, after rounds: Int) -> Int {
        var rounds = rounds
        while rounds < PCIQueue.roundLimit, isAsked(page) {
            let isMeasured = rounds & 7 == 0
            if isMeasured, rounds > 0 { clock = MonotonicClock.nanoseconds }
            rounds += 1
            let isAnswered = serve(page, since: clock)
            guard isMeasured else { continue }
            let now = MonotonicClock.nanoseconds
            if isAnswered {
                metrics.latency.add(nanoseconds: now &- clock)
                poll.answered(after: now &- clock)
            }
            clock = now
        }
        return rounds
    }

    /// Looks for the next operation as often as its window is long.
    /// - Returns: whether there is one. If not, the port has yet to be unmasked: what comes after the last look is heard then.
    private func looksOn(_ page: SharedPages) -> Bool {
        let window = poll.nanoseconds
        guard window > 0 else { return false }
        let looks = poll.looks(in: window)
        let start = looks == nil ? MonotonicClock.nanoseconds : 0
        let count = looks ?? PollWindow.trialLooks
        if page.sees(PCIWire.frontendActive, at: PCIWire.flagsOffset, looking: count) {
            poll.found()
            metrics.polled &+= 1
            return true
        }
        clock = MonotonicClock.nanoseconds
        if looks == nil { poll.tried(clock &- start) }
        poll.missed()
        return false
    }
}
