// The state of a loop that only its thread touches: the ring, what is in flight, and who waits for it.

internal import Glibc
internal import SharedRing
internal import SystemPackage

/// The ring with its tables. Every method is one short exclusive access, which makes no callbacks and releases no
/// target.
struct LoopCore: ~Copyable {
    private var ring: Uring
    private(set) var operations = OperationTable()
    var targets = TargetTable()
    /// Slots to be completed in the next turn, without an operation of the kernel.
    private var booked: ContiguousArray<(target: TargetID, slot: UInt32)> = []
    /// Set when the kick operation has finished: there is work in the inbox.
    var isKicked = false
    private static let ignored = UInt64.max

    init(entries: UInt32) throws(Errno) { ring = try Uring(entries: entries) }

    func enable() { ring.enable() }

    /// Submits, waits for at least `minimum` completions and notes all that have arrived.
    mutating func turn(waitingFor minimum: UInt32) {
        _ = ring.enter(waitingFor: minimum)
        reap()
        for (target, slot) in booked { targets.note(Completion(slot: slot, result: 0), for: target) }
        booked.removeAll(keepingCapacity: true)
    }

    /// Whether the next turn has something to deliver, whatever the kernel says.
    var hasBooked: Bool { !booked.isEmpty }

    mutating func book(target: TargetID, slot: UInt32) { booked.append((target, slot)) }

    /// Notes a result that did not come through the ring.
    mutating func finish(_ index: Int, result: Int32) {
        if !operations[index].isCancelled {
            let completion = Completion(slot: operations[index].slot, result: result)
            targets.note(completion, for: operations[index].target)
        }
        operations.remove(index)
    }

    /// Takes all targets out, to be released by the caller.
    mutating func takeTargets() -> TargetTable {
        var taken = TargetTable()
        swap(&taken, &targets)
        return taken
    }

    private mutating func reap() {
        while true {
            let count = ring.peek()
            if count == 0 { return }
            var polls: [Int] = []
            for position in 0..<count {
                let entry = ring.completion(position)
                if entry.userData != LoopCore.ignored, let again = note(entry) { polls.append(again) }
            }
            ring.advance(count)
            for index in polls { armPoll(index) }
        }
    }

    /// Notes one completion.
    /// - Returns: the index of a poll that must be armed again.
    private mutating func note(_ entry: Uring.Entry) -> Int? {
        let index = Int(truncatingIfNeeded: entry.userData)
        switch operations[index].kind {
        case .kick:
            isKicked = true
            operations.remove(index)
            return nil
        case .poll where entry.hasMore || (entry.result > 0 && !operations[index].isEnding):
            if !operations[index].isCancelled {
                let completion = Completion(slot: operations[index].slot, result: entry.result)
                targets.note(completion, for: operations[index].target)
            }
            return entry.hasMore ? nil : index
        case .poll, .transfer, .timer, .offloaded, .free:
            finish(index, result: entry.result)
            return nil
        }
    }
}

// Starting operations.
extension LoopCore {
    /// Makes room in the submission queue, by submitting and, if the kernel is short of memory, by reaping completions.
    private mutating func makeRoom(vectors: Int = 0) {
        while !ring.hasRoom(vectors: vectors) {
            if !ring.enter(waitingFor: 0) { reap() }
        }
    }

    /// Submits everything that was prepared.
    private mutating func submit() {
        while !ring.enter(waitingFor: 0) { reap() }
    }

    /// Notes an operation that another thread works on. Its result comes through `finish`.
    mutating func startOffloaded(target: TargetID, slot: UInt32) -> Int {
        operations.insert(Operation(kind: .offloaded, target: target, slot: slot))
    }

    mutating func startTransfer(
        _ file: OpenFile,
        at offset: UInt64,
        _ pages: PrivatePages,
        _ runs: borrowing IORuns,
        writing: Bool,
        target: TargetID,
        slot: UInt32
    ) {
        if runs.count == 1 {
            startTransfer(file, at: offset, pages, runs[0], writing: writing, target: target, slot: slot)
            return
        }
        precondition(runs.count > 0, "a transfer moves at least one byte")
        makeRoom(vectors: runs.count)
        for position in 0..<runs.count {
            let run = runs[position]
            // SAFETY: the operation below keeps `pages` alive until the kernel has finished.
            unsafe ring.appendVector(pages.unsafeAddress(at: run.offset, count: run.byteCount), run.byteCount)
        }
        let operation = Operation(kind: .transfer, target: target, slot: slot, file: file, pages: pages)
        let index = UInt64(operations.insert(operation))
        ring.prepareVectored(index, file.descriptor, count: runs.count, at: offset, writing: writing)
    }

    mutating func startTransfer(
        _ file: OpenFile,
        at offset: UInt64,
        _ pages: PrivatePages,
        _ run: IORuns.Run,
        writing: Bool,
        target: TargetID,
        slot: UInt32
    ) {
        makeRoom()
        let count = UInt32(run.byteCount)
        let operation = Operation(kind: .transfer, target: target, slot: slot, file: file, pages: pages)
        let index = UInt64(operations.insert(operation))
        // SAFETY: the operation keeps `pages` alive until the kernel has finished.
        let memory = unsafe pages.unsafeAddress(at: run.offset, count: run.byteCount)
        if writing {
            unsafe ring.prepareWrite(index, file.descriptor, memory, count, at: offset)
        } else {
            unsafe ring.prepareRead(index, file.descriptor, memory, count, at: offset)
        }
    }

    mutating func startSynchronize(_ file: OpenFile, target: TargetID, slot: UInt32) {
        makeRoom()
        let index = operations.insert(Operation(kind: .transfer, target: target, slot: slot, file: file))
        ring.prepareSynchronize(UInt64(index), file.descriptor)
    }

    mutating func startPunchHole(
        _ file: OpenFile,
        offset: UInt64,
        length: UInt64,
        target: TargetID,
        slot: UInt32
    ) {
        makeRoom()
        let index = operations.insert(Operation(kind: .transfer, target: target, slot: slot, file: file))
        ring.preparePunchHole(UInt64(index), file.descriptor, offset: offset, length: length)
    }

    /// Starts a poll, and submits it at once: the caller may close the descriptor after an unwatch.
    mutating func startPoll(_ descriptor: CInt, for events: UInt16, target: TargetID, slot: UInt32) {
        var operation = Operation(kind: .poll, target: target, slot: slot, descriptor: descriptor)
        operation.events = events
        armPoll(operations.insert(operation))
        submit()
    }

    private mutating func armPoll(_ index: Int) {
        makeRoom()
        ring.preparePoll(UInt64(index), operations[index].descriptor, operations[index].events)
    }

    mutating func startTimer(_ delay: Duration, target: TargetID, slot: UInt32) {
        makeRoom()
        let index = operations.insert(Operation(kind: .timer, target: target, slot: slot))
        ring.prepareTimeout(UInt64(index), delay)
    }

    /// Starts the read of the kick eventfd's eight bytes into `pages`.
    mutating func startKick(_ file: OpenFile, into pages: PrivatePages) {
        makeRoom()
        let operation = Operation(kind: .kick, target: Operation.none.target, file: file, pages: pages)
        let index = UInt64(operations.insert(operation))
        // SAFETY: the operation keeps `pages` alive until the kernel has finished.
        unsafe ring.prepareRead(index, file.descriptor, pages.unsafeAddress(at: 0, count: 8), 8, at: 0)
    }

    /// Cancels the operations that satisfy `predicate`. With `silently`, their completions are dropped.
    mutating func cancel(silently: Bool, where predicate: (Operation) -> Bool) {
        let victims = operations.indices(where: predicate)
        if victims.isEmpty { return }
        for index in victims {
            operations[index].isEnding = true
            if silently { operations[index].isCancelled = true }
            makeRoom()
            ring.prepareCancel(LoopCore.ignored, of: UInt64(index))
        }
        submit()
    }
}
