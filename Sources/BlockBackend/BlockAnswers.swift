// The end of a request: response, publication, one notification for many, and the journal slot freed afterwards.

internal import BackendCore
internal import Hypervisor
internal import SharedRing
internal import XenWire

extension BlockRingState {
    /// Answers a request that ran, and lets those run that waited for it.
    mutating func answer(_ slot: Int) {
        let fault = requests[slot].fault
        giveBuffers(slot)
        put(BlockResponse(to: requests[slot].request, fault.map { note($0) } ?? .okay), for: slot)
        order.finish(slot, runnable: &runnable)
    }

    /// Puts a response; it is visible after `publish`.
    mutating func put(_ answer: BlockResponse, for slot: Int) {
        ring.put(answer.words, for: slot)
    }

    /// Counts and logs a fault.
    mutating func note(_ fault: BlockFault) -> BlockStatus {
        let (status, origin) = fault.verdict
        switch origin {
        case .frontend:
            metrics.faults &+= 1
            log.fault(fault.description)
        case .host:
            metrics.failures &+= 1
            log.failure(fault.description)
        case .storage: metrics.failures &+= 1
        case .nobody: break
        }
        return status
    }

    /// Publishes all responses put in this turn.
    /// - Returns: whether the frontend asked to be notified.
    mutating func publish() -> Bool {
        guard ring.hasAnswers else { return false }
        let wanted = ring.publish()
        if wanted { metrics.notificationsSent &+= 1 } else { metrics.notificationsSaved &+= 1 }
        let end = MonotonicClock.nanoseconds
        for slot in ring.published { metrics.latency.add(nanoseconds: end &- requests[Int(slot)].takenAt) }
        facts.mark.device?.progressed()
        return wanted
    }
}
