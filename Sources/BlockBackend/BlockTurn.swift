// A turn of one ring: everything between an event and the next sleep, without a suspension.

internal import BackendCore
internal import Hypervisor
internal import SharedRing
internal import XenWire

extension BlockRingState {
    /// Rounds before others get their turn.
    private static let roundLimit = 8

    /// The start of every turn.
    mutating func beginTurn(mayTakeBuffers: Bool) {
        now = MonotonicClock.nanoseconds
        self.mayTakeBuffers = mayTakeBuffers
        bytesNow = 0
    }

    /// Whether buffers went back since the last time this was asked.
    mutating func takeFreedBuffers() -> Bool {
        defer { hasFreedBuffers = false }
        return hasFreedBuffers
    }

    /// After an event: takes all there is, starts it, answers what can be answered at once.
    mutating func turn(notify: inout Bool) -> TurnEnd {
        metrics.turns &+= 1
        var worked = false
        do throws(Breakdown) {
            for _ in 0..<BlockRingState.roundLimit {
                let taken = try intake()
                start()
                notify = publish() || notify
                if taken > 0 {
                    worked = true
                    if bytesNow >= BlockRingState.bytesNowPerTurn { break }
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

    /// After completions were entered with `transferEnded`: answers them and starts what waited for them.
    mutating func completionTurn(notify: inout Bool) {
        deliver()
        start()
        notify = publish() || notify
    }

    /// Inserts the next medium, unless a transfer still uses the present one.
    /// - Returns: whether new transfers must wait for a change of medium.
    mutating func awaitsMedium() -> Bool {
        guard let change = next else { return false }
        if freeTransfers.count < transfers.count { return true }
        medium = change.medium
        limits = change.limits
        next = nil
        log.forget()
        return false
    }

    struct NextMedium: Sendable {
        let medium: BlockMedium?
        let limits: BlockLimits
    }
}
