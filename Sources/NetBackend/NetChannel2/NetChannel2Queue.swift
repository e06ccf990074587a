// One netchannel2 queue's turns: an actor on a data loop that is entered once per event, readable interface or timer.

internal import BackendCore
internal import HostIO
internal import HostNetwork
internal import Hypervisor
internal import NetChannel2
internal import SharedRing
internal import XenWire

/// Both rings of a queue with their event channel and one queue of the interface.
final actor NetChannel2Queue {
    nonisolated let facts: NetChannel2QueueFacts
    // nil before `open` and after `close`.
    private var traffic: NetChannel2Traffic?
    private var device: PacketQueue?
    private var target: TargetID?
    private var port: QueuePort?
    private var stall = StallClock(notifiesOfBuffers: true)
    /// The next turn is queued behind whatever else the loop has to do, and no other runs until then; see `NetQueue`.
    private var isBooked = false
    /// Generation of the present throttle timer, 24 bits; older timers are ignored.
    private var pause: UInt32 = 0
    private var isThrottled = false
    /// false after a fault.
    private var isTaking = false

    /// Slots of completions, in their lowest byte.
    private enum Slot {
        static let readable: UInt32 = 0
        static let turn: UInt32 = 1
        static let unmask: UInt32 = 2
        static let stall: UInt32 = 3
        /// The number of the pause is in the bits above.
        static let paid: UInt32 = 4
    }

    nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe facts.data.loop.asUnownedSerialExecutor() }

    init(_ facts: NetChannel2QueueFacts) { self.facts = facts }

    /// What a queue is opened on.
    struct Opening: Sendable {
        let wanted: NetChannel2Connection.Queue
        let control: SharedPages
        let frontendPayload: SharedPages
        let backendPayload: SharedPages
        /// What our packets lie in.
        let pages: SharedGrant
        let limits: NetChannel2Limits
        let trustsPeer: Bool
        let device: PacketQueue
        let log: FaultLog
        let stall: StallTimes
    }

    /// Packets of ours that can wait for their FINISH_PACKET.
    static let capacity = 256

    /// Binds the port, says what we take, and begins to serve.
    func open(_ opening: Opening) async throws(BackendFailure) {
        guard MessageRing<NetChannel2Layout>.isFresh(opening.control) else {
            throw BackendFailure(.frontend, "queue \(facts.index): the control page has indices other than 0")
        }
        let memory: PrivatePages
        do { memory = try PrivatePages(byteCount: SharedPages.pageSize) } catch {
            throw BackendFailure(.host, "no memory for messages: \(error)")
        }
        let link = NetChannel2Link(
            MessageRing(
                control: opening.control,
                frontendPayload: opening.frontendPayload,
                backendPayload: opening.backendPayload,
                end: .backend
            ),
            NetChannel2Session(capacity: NetChannel2Queue.capacity, trustsPeer: opening.trustsPeer),
            GrantedPages(
                opening.pages.pages,
                references: opening.pages.references,
                slots: NetChannel2Queue.capacity
            ),
            memory: memory
        )
        var traffic = try NetChannel2Traffic(facts, link, device: opening.device, log: opening.log)
        do throws(Breakdown) {
            try traffic.open(opening.limits)
        } catch {
            throw BackendFailure(.frontend, "\(error)")
        }
        self.traffic = consume traffic
        try await begin(opening)
    }

    private func begin(_ opening: Opening) async throws(BackendFailure) {
        _ = try scratch()
        let target = facts.data.loop.attach(self)
        self.target = target
        port = try await .bind(
            opening.wanted.port,
            of: facts.path.domain,
            to: self,
            on: facts.data,
            wake: QueuePort.Wake(target, slot: Slot.unmask),
            mark: facts.mark.device
        )
        device = opening.device
        stall = StallClock(notifiesOfBuffers: true, times: opening.stall)
        isTaking = true
        facts.data.loop.watchReadable(opening.device.file.descriptor, target: target, slot: Slot.readable)
        port?.unmask()
        // The frontend has not asked for an event yet, and our limits wait for it.
        port?.notify()
        turn()
    }

    private func scratch() throws(BackendFailure) -> NetChannel2Scratch {
        try facts.data.common { () throws(BackendFailure) in try NetChannel2Scratch() }
    }

    /// Releases everything. A turn never suspends, so nothing is in flight; packets that wait are lost.
    /// - Parameter abandons: as the death of the process does; for tests.
    func close(abandons: Bool = false) {
        isTaking = false
        if let target {
            if let device { facts.data.loop.unwatch(device.file.descriptor, target: target, slot: Slot.readable) }
            facts.data.loop.detach(target)
        }
        if abandons { port.take()?.abandon() } else { port.take()?.close() }
        target = nil
        traffic = nil
        device = nil
    }

    func account() -> NetQueue.Account {
        var account = NetQueue.Account()
        if traffic == nil { return account }
        account.metrics = traffic?.metrics ?? NetMetrics()
        account.lastFault = traffic?.log.lastFault
        account.lastFailure = traffic?.log.lastFailure
        return account
    }

    /// The rate changed: try again if the last one throttled us.
    func rateChanged() {
        if isThrottled { paid() }
    }
}

// Turns: synchronous, entered by the loop.
extension NetChannel2Queue: QueueTurns, CompletionTarget {
    nonisolated func eventArrived(_ port: EventChannelPort) { assumeIsolated { $0.event() } }

    nonisolated func buffersFreed() {}

    nonisolated func completed(_ completions: borrowing CompletionBatch) {
        // The batch cannot enter the closure; its items are plain values on the stack of this call.
        assumeIsolated { $0.completionsArrived(completions) }
    }

    private func event() {
        guard isTaking else { return }
        let worked = turn()
        if isTaking { port?.rest(worked: worked) }
    }

    private func completionsArrived(_ completions: borrowing CompletionBatch) {
        var turns = false
        for position in 0..<completions.count {
            let slot = completions[position].slot
            switch slot & 0xFF {
            case Slot.readable:
                traffic?.mayHaveInput = true
                turns = true
            case Slot.turn:
                isBooked = false
                turns = true
            case Slot.unmask: port?.unmask()
            case Slot.stall: stalled()
            case Slot.paid where slot >> 8 == pause: paid()
            default: break
            }
        }
        if turns { turn() }
    }

    /// There is credit again.
    private func paid() {
        isThrottled = false
        traffic?.resume()
        turn()
    }

    /// - Returns: whether there was anything to do.
    @discardableResult
    private func turn() -> Bool {
        guard isTaking, !isBooked, traffic != nil, let scratch = try? scratch() else { return false }
        let end = facts.data.turn(facts.mark) {
            traffic?.turn(scratch) { port?.notify() } ?? .idle(worked: false)
        }
        if let pause = traffic?.pause, !isThrottled { wait(pause) }
        if traffic?.isStalled ?? false { beginStall() } else { endStall() }
        isBooked = end == .more
        switch end {
        case .idle(let worked): return worked
        case .more: if let target { facts.data.loop.soon(target: target, slot: Slot.turn) }
        case .broken(let breakdown):
            isTaking = false
            facts.latch.raise(breakdown)
        }
        return true
    }

    /// Until there is credit again.
    private func wait(_ pause: Duration) {
        isThrottled = true
        self.pause = (self.pause &+ 1) & 0xFF_FFFF
        if let target { facts.data.loop.after(pause, target: target, slot: Slot.paid | self.pause << 8) }
    }

    // MARK: a frontend that takes nothing

    private func beginStall() {
        guard let wait = stall.begin(now: MonotonicClock.nanoseconds), let target else { return }
        facts.data.loop.after(wait, target: target, slot: Slot.stall)
    }

    private func endStall() {
        if stall.end() { facts.shared.carrier(queue: facts.index, isUp: true) }
    }

    private func stalled() {
        guard isTaking, let action = stall.elapsed(now: MonotonicClock.nanoseconds) else { return }
        if action.drains { traffic?.drain() }
        if action.dropsCarrier { facts.shared.carrier(queue: facts.index, isUp: false) }
        if let target { facts.data.loop.after(action.next, target: target, slot: Slot.stall) }
    }
}
