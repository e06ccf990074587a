// One data loop: event loop, event channels and buffers shared by all queues that run on it.

public import HostIO
public import Hypervisor
public import SharedRing
internal import SystemPackage
public import XenWire

/// A queue as the data loop sees it. Called on the loop only.
///
/// An actor that is one must be `final`: what it stores is otherwise reached through accessors of the class, and each look
/// at a ring, which cannot be copied, then costs the allocation of a coroutine's frame.
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

    /// Binds the frontend's port, patiently: the kernel may not have closed a dead predecessor's end yet, and says EINVAL
    /// until then, as it does to a port that is wrong.
    /// - Parameters:
    ///   - key: the frontend's key that named the port.
    ///   - mark: the device's: whoever waits is not at fault when the worker dies.
    /// - Throws: `frontend` if the port stays unbindable; a takeover waits on, for as long as the keys name it.
    public func bind(
        _ port: EventChannelPort,
        of domain: DomainID,
        key: String = BusKeys.eventChannel,
        to queue: any QueueTurns,
        mark: DeviceCrashMark?
    ) async throws(BackendFailure) -> EventChannelPort {
        var patience = Patience(DataLoop.bindPatience)
        while true {
            do throws(HypervisorFailure) {
                return try bind(port, of: domain, to: queue)
            } catch {
                guard error.errno == .invalidArgument else { throw BackendFailure(.host, "\(error)") }
                guard let pause = patience.next() else {
                    let text = "\(key) names port \(port.rawValue), which is not one for us to bind (\(error))"
                    throw BackendFailure(.frontend, text, mayPass: true)
                }
                mark?.end()
                await loop.sleep(for: min(pause, DataLoop.bindPause))
                mark?.begin()
            }
        }
    }

    /// A dead process's ports come free within some 20 ms.
    private static let bindPatience = Duration.seconds(1)
    private static let bindPause = Duration.milliseconds(50)

    /// Forgets a queue as the death of its process does, for tests: nothing more is heard, and the port stays bound for
    /// as long as the kernel may take to close it.
    package func abandon(_ port: EventChannelPort) {
        precondition(loop.isOnLoop)
        queues[port] = nil
        let (loop, channels) = (loop, channels)
        Task(executorPreference: loop) {
            await loop.sleep(for: .milliseconds(20))
            channels.unbind(port)
        }
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
