// One queue's turns: an actor on a data loop that is entered once per event, readable interface or timer.

internal import BackendCore
internal import HostIO
internal import HostNetwork
internal import Hypervisor
internal import SharedRing
internal import XenWire

/// A transmit and a receive ring with their event channels and one queue of the interface.
actor NetQueue {
    nonisolated let facts: NetQueueFacts
    // nil before `open` and after `close`.
    private var transmit: NetTransmit?
    private var receive: NetReceive?
    private var device: PacketQueue?
    private var target: TargetID?
    private var ports: Ports?
    private var stall = StallClock(notifiesOfBuffers: true)
    private var patience = EventPatience()
    /// A direction's next turn is booked behind whatever else the loop has to do, and no other runs until then: whatever an
    /// event or a readable interface announces, the booked turn will see. If events could bring a turn forward, a guest
    /// could buy loop time by sending more of them.
    private var isTransmitBooked = false
    private var isReceiveBooked = false
    /// The rate allows no more for now.
    private var isThrottled = false
    /// Generation of the present throttle timer, 24 bits; older timers are ignored.
    private var pause: UInt32 = 0
    /// false after a fault.
    private var isTaking = false

    /// Our ends of the frontend's ports; the same one twice if it has but one.
    private struct Ports {
        var transmit: EventChannelPort
        var receive: EventChannelPort
        var isSplit: Bool { transmit != receive }
    }

    /// Slots of completions, in their lowest byte.
    private enum Slot {
        static let readable: UInt32 = 0
        static let transmit: UInt32 = 1
        static let receive: UInt32 = 2
        /// The pause after spurious events is over; each port has its own.
        static let unmaskTransmit: UInt32 = 3
        static let unmaskReceive: UInt32 = 6
        static let stall: UInt32 = 4
        /// The number of the pause is above.
        static let paid: UInt32 = 5
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
        let log: FaultLog
        let stall: StallTimes
        let isTakeover: Bool
    }

    /// Binds the ports and begins to serve.
    func open(_ opening: Opening) async throws(BackendFailure) {
        let wanted = opening.connection.queues[facts.index]
        func published(_ pages: SharedPages) -> UInt32? {
            opening.isTakeover ? BackRing.publishedResponses(in: pages) : nil
        }
        transmit = NetTransmit(
            facts,
            pages: opening.transmitRing,
            journal: opening.journal.ring(2 * facts.index),
            published: published(opening.transmitRing),
            device: opening.device,
            log: opening.log
        )
        receive = NetReceive(
            facts,
            pages: opening.receiveRing,
            journal: opening.journal.ring(2 * facts.index + 1),
            published: published(opening.receiveRing),
            device: opening.device,
            accepts: opening.connection.accepts,
            log: opening.log
        )
        do throws(JournalFault) {
            try transmit?.answerLost()
            try receive?.answerLost()
        } catch {
            throw BackendFailure(.frontend, "queue \(facts.index): ring and journal disagree (\(error))")
        }
        _ = try scratch()
        try await bind(wanted)
        device = opening.device
        stall = StallClock(notifiesOfBuffers: opening.connection.notifiesOfBuffers, times: opening.stall)
        isTaking = true
        let loop = facts.data.loop
        facts.shared.onSteered(queue: facts.index) {
            loop.perform { self.assumeIsolated { $0.steeredPacketsArrived() } }
        }
        if let target {
            facts.data.loop.watchReadable(opening.device.file.descriptor, target: target, slot: Slot.readable)
        }
        if opening.isTakeover, let ports {
            // The predecessor may have published without notifying.
            facts.data.channels.notify(ports.transmit)
            if ports.isSplit { facts.data.channels.notify(ports.receive) }
        }
        transmitTurn()
        receiveTurn()
    }

    private func bind(_ wanted: NetConnection.Queue) async throws(BackendFailure) {
        let (data, domain, mark) = (facts.data, facts.path.domain, facts.mark)
        target = data.loop.attach(self)
        let transmit = try await data.bind(wanted.transmitPort, of: domain, to: self, mark: mark)
        ports = Ports(transmit: transmit, receive: transmit)
        guard wanted.receivePort != wanted.transmitPort else { return }
        ports?.receive = try await data.bind(wanted.receivePort, of: domain, to: self, mark: mark)
    }

    private func scratch() throws(BackendFailure) -> NetScratch {
        try facts.data.common { () throws(BackendFailure) in try NetScratch() }
    }

    /// Releases everything. A turn never suspends, so nothing is in flight; a held packet is lost.
    /// - Parameter abandons: for tests: as the death of the process does.
    func close(abandons: Bool = false) {
        isTaking = false
        facts.shared.onSteered(queue: facts.index, nil)
        if let target {
            if let device { facts.data.loop.unwatch(device.file.descriptor, target: target, slot: Slot.readable) }
            facts.data.loop.detach(target)
        }
        if let ports {
            for port in ports.isSplit ? [ports.transmit, ports.receive] : [ports.transmit] {
                if abandons { facts.data.abandon(port) } else { facts.data.unbind(port) }
            }
        }
        target = nil
        ports = nil
        transmit = nil
        receive = nil
        device = nil
    }

    /// What a queue tells for a report.
    struct Account: Sendable {
        var metrics = NetMetrics()
        var lastFault: String?
        var lastFailure: String?
    }

    func account() -> Account {
        var account = Account()
        if transmit == nil { return account }
        account.metrics = transmit?.metrics ?? NetMetrics()
        account.metrics.merge(receive?.metrics ?? NetMetrics())
        account.lastFault = transmit?.log.lastFault ?? receive?.log.lastFault
        account.lastFailure = transmit?.log.lastFailure ?? receive?.log.lastFailure
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
        guard isTaking, let ports else { return }
        var worked = false
        if port == ports.transmit { worked = transmitTurn() }
        if port == ports.receive, receive?.isWaiting ?? false { worked = receiveTurn() || worked }
        guard isTaking else { return }
        if let pause = patience.rest(worked: worked), let target {
            let slot = port == ports.transmit ? Slot.unmaskTransmit : Slot.unmaskReceive
            facts.data.loop.after(pause, target: target, slot: slot)
        } else {
            facts.data.channels.unmask(port)
        }
    }

    private func completionsArrived(_ completions: borrowing CompletionBatch) {
        var (transmits, receives) = (false, false)
        for position in 0..<completions.count {
            let slot = completions[position].slot
            switch slot & 0xFF {
            case Slot.readable:
                receive?.mayHaveInput = true
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
            case Slot.unmaskTransmit: if let ports { facts.data.channels.unmask(ports.transmit) }
            case Slot.unmaskReceive: if let ports { facts.data.channels.unmask(ports.receive) }
            case Slot.stall: stalled()
            default: break
            }
        }
        if transmits { transmitTurn() }
        if receives, !(receive?.isWaiting ?? true) { receiveTurn() }
    }

    @discardableResult
    private func transmitTurn() -> Bool {
        guard isTaking, !isTransmitBooked, !isThrottled, transmit != nil, let scratch = try? scratch() else {
            return false
        }
        facts.mark?.begin(lane: 1 + facts.index)
        defer { facts.mark?.end(lane: 1 + facts.index) }
        let (channels, ports) = (facts.data.channels, ports)
        let end = transmit?.turn(scratch) { if let ports { channels.notify(ports.transmit) } }
        if case .more? = end { isTransmitBooked = true }
        return ended(end, again: Slot.transmit)
    }

    @discardableResult
    private func receiveTurn() -> Bool {
        guard isTaking, !isReceiveBooked, receive != nil, let scratch = try? scratch() else { return false }
        facts.mark?.begin(lane: 1 + facts.index)
        defer { facts.mark?.end(lane: 1 + facts.index) }
        var notify = false
        let end = receive?.turn(scratch, notify: &notify)
        if notify, let ports { facts.data.channels.notify(ports.receive) }
        if case .waiting? = end { beginStall() } else { endStall() }
        if case .more? = end { isReceiveBooked = true }
        return ended(end, again: Slot.receive)
    }

    /// - Returns: whether the turn did anything.
    private func ended(_ end: NetTurnEnd?, again slot: UInt32) -> Bool {
        switch end {
        case .idle(let worked)?: return worked
        case .more?:
            if let target { facts.data.loop.soon(target: target, slot: slot) }
        case .throttled(let pause)?:
            isThrottled = true
            self.pause = (self.pause &+ 1) & 0xFF_FFFF
            if let target { facts.data.loop.after(pause, target: target, slot: Slot.paid | self.pause << 8) }
        case .waiting(let worked)?: return worked
        case .broken(let breakdown)?:
            isTaking = false
            facts.alarm.raise(breakdown)
        case nil: return false
        }
        return true
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
        // It may never tell of buffers (feature-rx-notify = 0): look.
        receiveTurn()
        guard receive?.isWaiting ?? false, let action = stall.elapsed(now: MonotonicClock.nanoseconds) else { return }
        if action.drains { receive?.drain(scratch) }
        if action.dropsCarrier { facts.shared.carrier(queue: facts.index, isUp: false) }
        if let target { facts.data.loop.after(action.next, target: target, slot: Slot.stall) }
    }
}
