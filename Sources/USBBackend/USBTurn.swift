// A turn of the rings: everything between an event and the next sleep, without a suspension.

internal import BackendCore
internal import HostUSB
internal import Hypervisor
internal import SharedRing
internal import XenWire

extension USBRingState {
    /// Rounds before others get their turn.
    private static let roundLimit = 8

    /// The start of every turn.
    mutating func beginTurn() { now = MonotonicClock.nanoseconds }

    /// After an event: reports port events, takes all URBs there are, starts them, answers what can be answered.
    mutating func turn(notify: inout Bool) -> TurnEnd {
        metrics.turns &+= 1
        do throws(Breakdown) {
            var worked = try announce(notify: &notify)
            for _ in 0..<USBRingState.roundLimit {
                if try takeAll(notify: &notify) {
                    worked = true
                    continue
                }
                if try ring.lastLook() == 0 {
                    if !worked { metrics.idleTurns &+= 1 }
                    return .idle(worked: worked)
                }
            }
            return .more
        } catch {
            return .broken(error)
        }
    }

    /// One round: takes all URBs there are, starts them and those whose queue is resumed, answers what can be answered.
    /// - Returns: whether there were any.
    mutating func takeAll(notify: inout Bool) throws(Breakdown) -> Bool {
        // Read before the requests: what the frontend unlinks because of a response, it unlinks before it moves
        // `rsp_event`.
        let seen = ring.responseEvent
        let count = try intake()
        let resumes = isHalted && resumeQueues(seen)
        if count > 0 || resumes { deliver(notify: &notify) }
        return count > 0
    }

    /// Tells the frontend about its ports.
    /// - Returns: whether there was anything to report and it could be reported.
    mutating func announce(notify: inout Bool) throws(Breakdown) -> Bool {
        let (count, asked) = try connections.announce(&events)
        guard count > 0 else { return false }
        metrics.notified(asked)
        notify = asked || notify
        isMemoryStale = true
        remember()
        return true
    }

    /// Saves what a successor must know, if it has changed. Done after an event is visible to the frontend: reporting
    /// one twice is harmless, losing one is not.
    mutating func remember() {
        guard isMemoryStale else { return }
        isMemoryStale = false
        memory.save(USBPortMemory.bytes(of: ports.map { $0.remembered(told: events.told($0.port)) }))
    }

    /// Answers what has ended, starts what waited for it, publishes.
    mutating func deliver(notify: inout Bool) {
        repeat {
            concludeEnded()
            resume()
        } while !ended.isEmpty
        // Before the frontend can build on it.
        remember()
        notify = publish() || notify
    }

    /// Puts the answer of one URB into the ring.
    mutating func answer(_ slot: Int, _ status: URBStatus, byteCount: Int = 0, errorCount: Int = 0) {
        let response = URBResponse(
            id: urbs[slot].id,
            status,
            byteCount: UInt32(truncatingIfNeeded: byteCount),
            startFrame: urbs[slot].startFrame,
            errorCount: UInt32(truncatingIfNeeded: errorCount)
        )
        urbs[slot].response = ring.put(response.words, for: slot)
        urbs[slot].stage = .answered
        urbs[slot].device = nil
    }

    /// Answers an URB that did not complete as asked, counts it, and logs it if it is worth a line.
    mutating func refuse(_ slot: Int, _ fault: USBFault, byteCount: Int = 0, errorCount: Int = 0) {
        count(fault)
        let (status, origin) = fault.verdict
        let number = urbs[slot].portNumber
        switch origin {
        case .frontend: log.fault("port \(number): \(fault)")
        case .host: log.failure("port \(number): \(fault)")
        case .device, .nobody: break
        }
        answer(slot, status, byteCount: byteCount, errorCount: errorCount)
    }

    private mutating func count(_ fault: USBFault) {
        switch fault {
        case .request, .grant: metrics.faults &+= 1
        case .emptyPort, .address, .endpoint, .control: metrics.misdirected &+= 1
        case .hypervisor, .transfer(.refused): metrics.refused &+= 1
        case .transfer(.stall): metrics.stalls &+= 1
        case .transfer(.overflow): metrics.overflows &+= 1
        case .transfer(.noDevice), .transfer(.cancelled), .gone, .lost: metrics.lost &+= 1
        case .transfer: metrics.transactionErrors &+= 1
        case .unlinked: metrics.unlinked &+= 1
        }
    }

    /// Makes all answers visible; then their slots are free.
    /// - Returns: whether the frontend asked to be notified.
    mutating func publish() -> Bool {
        guard ring.hasAnswers else { return false }
        let isAsked = ring.publish()
        metrics.notified(isAsked)
        for slot in ring.published {
            metrics.latency.add(nanoseconds: now &- urbs[Int(slot)].takenAt)
            urbs[Int(slot)].stage = .free
        }
        facts.mark?.progressed()
        return isAsked
    }
}
