// A queue's end of its event channel: bound with patience, masked until the work is done, notified through.

public import HostIO
internal import Hypervisor
public import XenWire

/// The port of one queue, or one of its ports. Belongs on the queue's loop; given back with `close`.
///
/// A port that fired stays masked until the queue has looked at its work (XSA-332); `ended` and `rest` unmask it, after a
/// pause if events keep coming for nothing.
public struct QueuePort: ~Copyable {
    /// Where a pause ends: a completion slot of the queue's on its loop; it calls `unmask` then.
    public struct Wake: Sendable {
        let target: TargetID
        let slot: UInt32
        public init(_ target: TargetID, slot: UInt32) {
            self.target = target
            self.slot = slot
        }
    }

    /// Our end, as `QueueTurns.eventArrived` names it.
    public let port: EventChannelPort
    private let data: DataLoop
    private let wake: Wake
    private var throttle = SpuriousEventThrottle()

    /// Binds a port that the frontend named, waiting for a dead predecessor's end to be closed (`DataLoop.bind`).
    /// - Parameters:
    ///   - key: the frontend's key that named it.
    ///   - mark: the device's.
    public static func bind(
        _ port: EventChannelPort,
        of domain: DomainID,
        key: String = BusKeys.eventChannel,
        to queue: any QueueTurns,
        on data: DataLoop,
        wake: Wake,
        mark: DeviceCrashMark?
    ) async throws(BackendFailure) -> QueuePort {
        let port = try await data.bind(port, of: domain, key: key, to: queue, mark: mark)
        return QueuePort(port: port, data: data, wake: wake)
    }

    private init(port: EventChannelPort, data: DataLoop, wake: Wake) {
        self.port = port
        self.data = data
        self.wake = wake
    }

    /// Sends the frontend an event.
    public borrowing func notify() { data.channels.notify(port) }

    /// The pause is over.
    public borrowing func unmask() { data.channels.unmask(port) }

    /// Sleeps until the next event.
    /// - Parameter worked: whether the last one brought any work.
    public mutating func rest(worked: Bool) {
        if let pause = throttle.rest(worked: worked) {
            data.loop.after(pause, target: wake.target, slot: wake.slot)
        } else {
            unmask()
        }
    }

    /// What follows from a turn that an event of this port brought: sleep, or another turn at completion slot `again`
    /// when the others of the loop have had theirs.
    /// - Returns: why the connection cannot go on; the port stays masked.
    public mutating func ended(_ end: TurnEnd, again: UInt32) -> Breakdown? {
        switch end {
        case .idle(let worked): rest(worked: worked)
        case .more: data.loop.soon(target: wake.target, slot: again)
        case .broken(let breakdown): return breakdown
        }
        return nil
    }

    /// Closes the port; nothing more is heard of it.
    public consuming func close() { data.unbind(port) }

    /// Leaves the port as the death of the process does, for tests.
    package consuming func abandon() { data.abandon(port) }
}
