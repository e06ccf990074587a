// The operations of a loop, all to be started on its own thread.

internal import Glibc
public import SharedRing

extension EventLoop {
    /// Attaches a target, so that it can start operations. The loop holds it until it is detached.
    public func attach(_ target: any CompletionTarget) -> TargetID {
        precondition(isOnLoop)
        return core.targets.attach(target)
    }

    /// Detaches a target: it receives nothing more. Its polls and timers are cancelled; transfers in flight go on, and
    /// their files and memory are held until they have ended.
    public func detach(_ id: TargetID) {
        precondition(isOnLoop)
        guard let target = core.targets.detach(id) else { return }
        core.cancel(silently: true) { $0.target == id && ($0.kind == .poll || $0.kind == .timer) }
        withExtendedLifetime(target) {}
    }

    /// Completes the slot whenever a descriptor becomes readable; the result is a mask of poll(2) events.
    ///
    /// Edge-triggered: read until there is nothing left, or it may not complete again. The first completion comes at
    /// once if the descriptor is readable already. A negative result ends the watch.
    public func watchReadable(_ descriptor: CInt, target: TargetID, slot: UInt32) {
        watch(descriptor, for: UInt16(POLLIN), target: target, slot: slot)
    }

    /// The same for any mask of poll(2) events; errors and hang-ups are reported in any case.
    public func watch(_ descriptor: CInt, for events: UInt16, target: TargetID, slot: UInt32) {
        precondition(isOnLoop)
        if refuses(target, slot) { return }
        core.startPoll(descriptor, for: events, target: target, slot: slot)
    }

    /// Ends a watch. The descriptor can be closed after this.
    public func unwatch(_ descriptor: CInt, target: TargetID, slot: UInt32) {
        precondition(isOnLoop)
        core.cancel(silently: true) {
            $0.kind == .poll && $0.target == target && $0.slot == slot && $0.descriptor == descriptor
        }
    }

    /// Completes the slot once, after a delay, with `-ETIME`.
    public func after(_ delay: Duration, target: TargetID, slot: UInt32) {
        precondition(isOnLoop)
        if refuses(target, slot) { return }
        core.startTimer(delay, target: target, slot: slot)
    }

    /// Completes the slot once, with 0, after all that is ready now has had its turn.
    public func soon(target: TargetID, slot: UInt32) {
        precondition(isOnLoop)
        if refuses(target, slot) { return }
        core.book(target: target, slot: slot)
    }

    /// Cancels the target's timers with this slot. They do not complete any more.
    public func cancelTimers(target: TargetID, slot: UInt32) {
        precondition(isOnLoop)
        core.cancel(silently: true) { $0.kind == .timer && $0.target == target && $0.slot == slot }
    }

    /// Reads into runs of private memory; the result is the number of bytes, fewer at the end of the file.
    public func read(
        _ file: OpenFile,
        at offset: UInt64,
        into pages: PrivatePages,
        runs: borrowing IORuns,
        target: TargetID,
        slot: UInt32
    ) {
        precondition(isOnLoop)
        core.startTransfer(file, at: offset, pages, runs, writing: false, target: target, slot: slot)
    }

    /// Writes runs of private memory, which must not change before the completion; the result is the number of bytes.
    public func write(
        _ file: OpenFile,
        at offset: UInt64,
        from pages: PrivatePages,
        runs: borrowing IORuns,
        target: TargetID,
        slot: UInt32
    ) {
        precondition(isOnLoop)
        core.startTransfer(file, at: offset, pages, runs, writing: true, target: target, slot: slot)
    }

    /// Makes all writes that have completed durable (fdatasync).
    public func synchronize(_ file: OpenFile, target: TargetID, slot: UInt32) {
        precondition(isOnLoop)
        core.startSynchronize(file, target: target, slot: slot)
    }

    /// Deallocates a range (fallocate with FALLOC_FL_PUNCH_HOLE): it reads as zeroes then, and the file keeps its size.
    /// `EOPNOTSUPP` where the file system cannot.
    public func punchHole(
        _ file: OpenFile,
        offset: UInt64,
        length: UInt64,
        target: TargetID,
        slot: UInt32
    ) {
        precondition(isOnLoop)
        core.startPunchHole(file, offset: offset, length: length, target: target, slot: slot)
    }

    /// Runs `work`, which may block, on a helper thread; what it returns completes the slot.
    ///
    /// For ioctls on block devices and the like: the few threads are shared by all loops of the process.
    public func offload(_ work: @escaping @Sendable () -> Int32, target: TargetID, slot: UInt32) {
        precondition(isOnLoop)
        let index = core.startOffloaded(target: target, slot: slot)
        BlockingThreads.shared.run {
            let result = work()
            self.perform { self.core.finish(index, result: result) }
        }
    }

    /// A loop that is ending starts nothing that might never finish.
    private func refuses(_ target: TargetID, _ slot: UInt32) -> Bool {
        if isStopping { core.targets.note(Completion(slot: slot, result: -ECANCELED), for: target) }
        return isStopping
    }
}
