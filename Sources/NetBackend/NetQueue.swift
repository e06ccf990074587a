// One queue's turns: an actor on a data loop that is entered once per event, readable interface or timer.

internal import BackendCore
internal import HostIO
internal import HostNetwork
internal import Hypervisor
internal import SharedRing
internal import SystemPackage
internal import XenWire

/// A transmit and a receive ring with their event channels and one queue of the interface.
final actor NetQueue {
    nonisolated let facts: NetQueueFacts
    // nil before `open` and after `close`.
    var transmit: NetTransmit?
    var receive: NetReceive?
    var device: PacketQueue?
    /// What carries packets to and from the interface; both directions use the same.
    var port: (any PacketPort)?
    var watch = HostWatch()
    var target: TargetID?
    /// Our ends of the frontend's ports. A single port is the transmit port.
    private var transmitPort: QueuePort?
    private var receivePort: QueuePort?
    private var stall = StallClock(notifiesOfBuffers: true)
    /// A direction's next turn is queued behind whatever else the loop has to do, and no other runs until then: it will
    /// see whatever an event or a readable interface announces meanwhile. If events could bring a turn forward, a guest
    /// could gain loop time by sending more of them.
    private var isTransmitBooked = false
    private var isReceiveBooked = false
    /// The rate limit allows no more for now.
    private var isThrottled = false
    /// Generation of the present throttle timer, 24 bits; older timers are ignored.
    private var pause: UInt32 = 0
    /// false after a fault.
    var isTaking = false

    /// Slots of completions, in their lowest byte.
    enum Slot {
        static let readable: UInt32 = 0
        static let transmit: UInt32 = 1
        static let receive: UInt32 = 2
        /// The pause after spurious events is over; each port has its own.
        static let unmaskTransmit: UInt32 = 3
        static let unmaskReceive: UInt32 = 6
        static let stall: UInt32 = 4
        /// The number of the pause is in the bits above.
        static let paid: UInt32 = 5
        /// The host has room again; something is wrong at the host; time to see whether it takes packets.
        static let room: UInt32 = 7
        static let hostError: UInt32 = 8
        static let progress: UInt32 = 9
    }

    nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe facts.data.loop.asUnownedSerialExecutor() }

    init(_ facts: NetQueueFacts) { self.facts = facts }

    /// What a queue is opened on.
    struct Opening: Sendable {
        let connection: NetConnection
        let transmitRing: SharedPages
        let receiveRing: SharedPages
        let journal: RequestJournal
        let device: PacketQueue
        /// The kernel's thread for that queue; nil: packets go by system calls.
        let vhost: VhostPort?
        let log: FaultLog
        let stall: StallTimes
        let isTakeover: Bool
    }

    /// Binds the ports and begins to serve.
    func open(_ opening: Opening) async throws(BackendFailure) {
        _ = try scratch()
        let port: any PacketPort = if let vhost = opening.vhost { vhost } else { try plainPort(opening.device) }
        do throws(JournalFault) {
            try attach(opening, port)
        } catch {
            throw BackendFailure(.frontend, "queue \(facts.index): ring and journal disagree (\(error))")
        }
        device = opening.device
        self.port = port
        try await bind(opening.connection.queues[facts.index])
        stall = StallClock(notifiesOfBuffers: opening.connection.notifiesOfBuffers, times: opening.stall)
        watch = HostWatch(patience: opening.stall.host)
        isTaking = true
        let loop = facts.data.loop
        facts.shared.onSteered(queue: facts.index) {
            loop.perform { self.assumeIsolated { $0.steeredPacketsArrived() } }
        }
        watchPort()
        // One of them may have fired while the other was waited for.
        transmitPort?.unmask()
        receivePort?.unmask()
        if opening.isTakeover {
            // The predecessor may have published without notifying.
            transmitPort?.notify()
            receivePort?.notify()
        }
        transmitTurn()
        receiveTurn()
    }

    /// Continues the rings where a predecessor stopped.
    private func attach(_ opening: Opening, _ port: any PacketPort) throws(JournalFault) {
        transmit = try NetTransmit(
            facts,
            pages: opening.transmitRing,
            journal: opening.journal.ring(2 * facts.index),
            port: port,
            log: opening.log,
            isTakeover: opening.isTakeover
        )
        receive = try NetReceive(
            facts,
            pages: opening.receiveRing,
            journal: opening.journal.ring(2 * facts.index + 1),
            port: port,
            accepts: opening.connection.accepts,
            log: opening.log,
            isTakeover: opening.isTakeover
        )
        try transmit?.answerLost()
        receive?.answerLost()
    }

    private func bind(_ wanted: NetConnection.Queue) async throws(BackendFailure) {
        let target = facts.data.loop.attach(self)
        self.target = target
        transmitPort = try await bind(wanted.transmitPort, QueuePort.Wake(target, slot: Slot.unmaskTransmit))
        guard wanted.receivePort != wanted.transmitPort else { return }
        receivePort = try await bind(wanted.receivePort, QueuePort.Wake(target, slot: Slot.unmaskReceive))
    }

    private func bind(
        _ port: EventChannelPort,
        _ wake: QueuePort.Wake
    ) async throws(BackendFailure) -> QueuePort {
        try await .bind(
            port,
            of: facts.path.domain,
            to: self,
            on: facts.data,
            wake: wake,
            mark: facts.mark.device
        )
    }

    private func scratch() throws(BackendFailure) -> NetScratch {
        try facts.data.common { () throws(BackendFailure) in try NetScratch() }
    }

    func plainPort(_ device: PacketQueue) throws(BackendFailure) -> PlainPort {
        do throws(Errno) {
            return PlainPort(device, try facts.data.common { () throws(Errno) in try PacketMemory() })
        } catch {
            throw BackendFailure(.host, "no memory for packets: \(error)")
        }
    }

    /// Releases everything. A turn never suspends, so nothing is in flight; a held packet is lost.
    /// - Parameter abandons: as the death of the process does; for tests.
    func close(abandons: Bool = false) {
        isTaking = false
        facts.shared.onSteered(queue: facts.index, nil)
        unwatchPort()
        if let target { facts.data.loop.detach(target) }
        // The kernel's thread goes with its process, too.
        port?.close()
        if abandons {
            transmitPort.take()?.abandon()
            receivePort.take()?.abandon()
        } else {
            transmitPort.take()?.close()
            receivePort.take()?.close()
        }
        target = nil
        transmit = nil
        receive = nil
        port = nil
        device = nil
    }

    /// A queue's part of a report.
    struct Account: Sendable {
        var metrics = NetMetrics()
        var lastFault: String?
        var lastFailure: String?
        /// How packets get to the host and back, and whether it takes any.
        var host: String?
    }

    func account() -> Account {
        var account = Account()
        if transmit == nil { return account }
        account.metrics = transmit?.metrics ?? NetMetrics()
        account.metrics.merge(receive?.metrics ?? NetMetrics())
        account.lastFault = transmit?.log.lastFault ?? receive?.log.lastFault
        account.lastFailure = transmit?.log.lastFailure ?? receive?.log.lastFailure
        account.host = port is VhostPort ? "vhost-net" : "system calls"
        if watch.isStuck { account.host? += ", which has taken no packet for \(watch.patience)" }
        return account
    }

    /// Another queue has packets for this one.
    private func steeredPacketsArrived() {
        if isTaking { receiveTurn() }
    }

    /// The rate changed: try again if the last one throttled us.
    func rateChanged() {
        guard isThrottled else { return }
        isThrottled = false
        transmitTurn()
    }
}

// Turns: synchronous, entered by the loop.
extension NetQueue: QueueTurns, CompletionTarget {
    nonisolated func eventArrived(_ port: EventChannelPort) { assumeIsolated { $0.event(port) } }

    nonisolated func buffersFreed() {}

    nonisolated func completed(_ completions: borrowing CompletionBatch) {
        // The batch cannot enter the closure; its items are plain values on the stack of this call.
        assumeIsolated { $0.completionsArrived(completions) }
    }

    private func event(_ port: EventChannelPort) {
        guard isTaking else { return }
        let isForTransmit = port == transmitPort?.port
        var worked = isForTransmit && transmitTurn()
        // A port of its own, or the only port.
        if !isForTransmit || receivePort == nil, receive?.isWaiting ?? false { worked = receiveTurn() || worked }
        guard isTaking else { return }
        if isForTransmit { transmitPort?.rest(worked: worked) } else { receivePort?.rest(worked: worked) }
    }

    private func completionsArrived(_ completions: borrowing CompletionBatch) {
        var (transmits, receives) = (false, false)
        for position in 0..<completions.count {
            let slot = completions[position].slot
            switch slot & 0xFF {
            case Slot.readable:
                receive?.mayHaveInput()
                receives = true
            case Slot.transmit:
                isTransmitBooked = false
                transmits = true
            case Slot.receive:
                isReceiveBooked = false
                receives = true
            case Slot.paid where slot >> 8 == pause:
                isThrottled = false
                transmits = true
            case Slot.unmaskTransmit: transmitPort?.unmask()
            case Slot.unmaskReceive: receivePort?.unmask()
            case Slot.stall: stalled()
            case Slot.room: transmits = true
            case Slot.hostError: hostFailed()
            case Slot.progress: progressIsDue()
            default: break
            }
        }
        if transmits { transmitTurn() }
        if receives, receive?.mayReceive ?? false { receiveTurn() }
    }

    @discardableResult
    func transmitTurn() -> Bool {
        guard isTaking, !isTransmitBooked, !isThrottled, transmit != nil, let scratch = try? scratch() else {
            return false
        }
        let end = facts.data.turn(facts.mark) {
            transmit?.turn(scratch) { transmitPort?.notify() } ?? .idle(worked: false)
        }
        if let pause = transmit?.pause { wait(pause) }
        isTransmitBooked = end == .more
        if let failure = transmit?.portFailure { fallBack(failure) }
        watchProgress()
        return ended(end, again: Slot.transmit)
    }

    @discardableResult
    func receiveTurn() -> Bool {
        guard isTaking, !isReceiveBooked, receive != nil, let scratch = try? scratch() else { return false }
        var notify = false
        let end = facts.data.turn(facts.mark) {
            receive?.turn(scratch, notify: &notify) ?? .idle(worked: false)
        }
        if notify { if receivePort == nil { transmitPort?.notify() } else { receivePort?.notify() } }
        if receive?.isWaiting ?? false { beginStall() } else { endStall() }
        isReceiveBooked = end == .more
        if let failure = receive?.portFailure { fallBack(failure) }
        return ended(end, again: Slot.receive)
    }

    /// Until there is credit again.
    private func wait(_ pause: Duration) {
        isThrottled = true
        self.pause = (self.pause &+ 1) & 0xFF_FFFF
        if let target { facts.data.loop.after(pause, target: target, slot: Slot.paid | self.pause << 8) }
    }

    /// - Returns: whether the turn did anything.
    private func ended(_ end: TurnEnd, again slot: UInt32) -> Bool {
        switch end {
        case .idle(let worked): return worked
        case .more: if let target { facts.data.loop.soon(target: target, slot: slot) }
        case .broken(let breakdown): broken(breakdown)
        }
        return true
    }

    func broken(_ breakdown: Breakdown) {
        isTaking = false
        facts.latch.raise(breakdown)
    }

    // MARK: a frontend that posts no buffers

    private func beginStall() {
        guard let wait = stall.begin(now: MonotonicClock.nanoseconds), let target else { return }
        facts.data.loop.after(wait, target: target, slot: Slot.stall)
    }

    private func endStall() {
        if stall.end() { facts.shared.carrier(queue: facts.index, isUp: true) }
    }

    private func stalled() {
        guard isTaking, let scratch = try? scratch() else { return }
        // It may never notify when it posts buffers (feature-rx-notify = 0): poll.
        receiveTurn()
        if !(receive?.isStarved ?? true) { stall.isCalm(now: MonotonicClock.nanoseconds) }
        guard receive?.isWaiting ?? false, let action = stall.elapsed(now: MonotonicClock.nanoseconds) else { return }
        if action.drains { receive?.drain(scratch) }
        if let failure = receive?.portFailure { fallBack(failure) }
        if action.dropsCarrier { facts.shared.carrier(queue: facts.index, isUp: false) }
        if let target { facts.data.loop.after(action.next, target: target, slot: Slot.stall) }
    }
}
