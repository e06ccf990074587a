// One data loop: event loop, event channels and buffers shared by all queues that run on it.

public import HostIO
public import Hypervisor
public import SharedRing
public import XenWire

/// A queue as the data loop sees it. Called on the loop only.
public protocol QueueTurns: AnyObject, Sendable {
    /// The frontend sent an event. The port stays masked until the queue unmasks it, after its work (XSA-332).
    func eventArrived(_ port: EventChannelPort)
    /// Buffers that others held are free again. A queue that needs no more calls `stopWaiting`.
    func buffersFreed()
}

/// An event loop with what its queues share. All but `init` and `shutDown` belong on the loop.
public final class DataLoop: CompletionTarget, @unchecked Sendable {
    public let loop: EventLoop
    public let channels: any EventChannels
    /// One batch for all queues: a turn never suspends, so it is nobody's between two turns.
    public var copies: GrantCopyBatch
    /// Buffers of all queues.
    public var pool: BufferPool

    /// Events taken before completions get their turn.
    private static let eventLimit = 64
    private var queues: [EventChannelPort: any QueueTurns] = [:]
    private var waiting: [any QueueTurns] = []
    private var target: TargetID?
    private var commons: [ObjectIdentifier: AnyObject] = [:]

    init(name: String, hypervisor: any Hypervisor) throws(BackendFailure) {
        do throws(HypervisorFailure) {
            channels = try hypervisor.openEventChannels()
        } catch {
            throw BackendFailure(.host, "cannot open event channels: \(error)")
        }
        do {
            loop = try EventLoop(name: name)
            pool = try BufferPool()
        } catch {
            throw BackendFailure(.host, "cannot start an event loop: \(error)")
        }
        copies = GrantCopyBatch(capacity: 1024)
    }

    /// Binds the frontend's port and gives its events to `queue`.
    public func bind(
        _ port: EventChannelPort,
        of domain: DomainID,
        to queue: any QueueTurns
    ) throws(HypervisorFailure) -> EventChannelPort {
        precondition(loop.isOnLoop)
        if target == nil {
            let id = loop.attach(self)
            target = id
            loop.watchReadable(channels.descriptor, target: id, slot: 0)
        }
        let local = try channels.bind(to: port, of: domain)
        queues[local] = queue
        return local
    }

    /// Closes a port; its queue hears nothing more.
    public func unbind(_ port: EventChannelPort) {
        precondition(loop.isOnLoop)
        queues[port] = nil
        channels.unbind(port)
    }

    /// What all queues of one class share on this loop, made at the first use.
    public func common<Common: AnyObject, Failure: Error>(
        _ make: () throws(Failure) -> Common
    ) throws(Failure) -> Common {
        precondition(loop.isOnLoop)
        if let common = commons[ObjectIdentifier(Common.self)] as? Common { return common }
        let common = try make()
        commons[ObjectIdentifier(Common.self)] = common
        return common
    }

    /// Asks to be woken by `buffersFreed`; the order of asking is the order of waking.
    public func waitForBuffers(_ queue: any QueueTurns) {
        precondition(loop.isOnLoop)
        if !waiting.contains(where: { $0 === queue }) { waiting.append(queue) }
    }

    /// Forgets a queue that waited.
    public func stopWaiting(_ queue: any QueueTurns) {
        if !waiting.isEmpty { waiting.removeAll { $0 === queue } }
    }

    /// Whether somebody asked first: who came later must not overtake, or large requests starve.
    public func othersWait(before queue: any QueueTurns) -> Bool {
        guard let first = waiting.first else { return false }
        return first !== queue
    }

    /// Wakes the queues that wait, in order, until one still needs more; called at the end of a turn that freed some.
    public func wakeWaiting() {
        while let queue = waiting.first {
            queue.buffersFreed()
            if waiting.first === queue { return }
        }
    }

    public func completed(_ completions: borrowing CompletionBatch) {
        // Bounded: a frontend that notifies without end must not keep the loop from everybody else (XSA-332).
        for _ in 0..<DataLoop.eventLimit {
            guard let port = channels.takePending() else { return }
            queues[port]?.eventArrived(port)
        }
        if let target { loop.after(.zero, target: target, slot: 1) }
    }

    func shutDown() { loop.shutDown() }
}
