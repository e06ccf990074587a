// What is in flight on a loop and for whom: slot-indexed tables that stop allocating once they have grown.

internal import SharedRing

/// One submitted operation. It holds the file and the memory until the kernel is done with both, even if the target is
/// gone.
struct Operation {
    enum Kind: UInt8 {
        case free, transfer, poll, timer, kick, offloaded
    }

    var kind = Kind.free
    /// Set when its completion is to be dropped.
    var isCancelled = false
    /// Set when its cancellation was submitted, so that it must not be armed again.
    var isEnding = false
    /// What a poll waits for.
    var events: UInt16 = 0
    var target: TargetID
    var slot: UInt32 = 0
    /// The polled descriptor; for a free entry, the next free one.
    var descriptor: CInt = -1
    var file: OpenFile?
    var pages: PrivatePages?

    static let none = Operation(target: TargetID(index: .max, generation: 0))
}

/// The operations in flight; an index is the operation's user data in the ring.
struct OperationTable: ~Copyable {
    private var entries: ContiguousArray<Operation> = []
    private var firstFree: CInt = -1
    /// Operations in flight.
    private(set) var count = 0

    subscript(index: Int) -> Operation {
        _read { yield entries[index] }
        _modify { yield &entries[index] }
    }

    /// Puts an operation in and returns its index.
    mutating func insert(_ operation: consuming Operation) -> Int {
        count &+= 1
        if firstFree >= 0 {
            let index = Int(firstFree)
            firstFree = entries[index].descriptor
            entries[index] = operation
            return index
        }
        entries.append(operation)
        return entries.count &- 1
    }

    /// Forgets an operation and releases what it held.
    mutating func remove(_ index: Int) {
        entries[index].kind = .free
        entries[index].file = nil
        entries[index].pages = nil
        entries[index].descriptor = firstFree
        firstFree = CInt(truncatingIfNeeded: index)
        count &-= 1
    }

    /// Indices of the live operations that satisfy `predicate`, for the rare paths.
    func indices(where predicate: (Operation) -> Bool) -> [Int] {
        entries.indices.filter { entries[$0].kind != .free && predicate(entries[$0]) }
    }
}

/// The attached targets and their completions that wait for delivery.
struct TargetTable: ~Copyable {
    private struct Entry {
        var target: (any CompletionTarget)?
        var generation: UInt32 = 0
        var run: ContiguousArray<Completion> = []
    }

    private var entries: ContiguousArray<Entry> = []
    private var free: [UInt32] = []
    /// Indices of the targets with a run that is not empty.
    private var touched: ContiguousArray<UInt32> = []
    private var nextTouched = 0

    mutating func attach(_ target: any CompletionTarget) -> TargetID {
        let index = free.popLast() ?? UInt32(entries.count)
        if index == entries.count { entries.append(Entry()) }
        entries[Int(index)].target = target
        return TargetID(index: index, generation: entries[Int(index)].generation)
    }

    /// Removes a target and its undelivered completions.
    /// - Returns: the target, or nil if it was not attached.
    mutating func detach(_ id: TargetID) -> (any CompletionTarget)? {
        guard isAttached(id), let target = entries[Int(id.index)].target else { return nil }
        let index = Int(id.index)
        entries[index].target = nil
        entries[index].generation &+= 1
        entries[index].run.removeAll(keepingCapacity: true)
        free.append(id.index)
        return target
    }

    func isAttached(_ id: TargetID) -> Bool {
        id.index < entries.count && entries[Int(id.index)].generation == id.generation
            && entries[Int(id.index)].target != nil
    }

    /// Notes a completion for delivery; a detached target's is dropped.
    mutating func note(_ completion: Completion, for id: TargetID) {
        guard isAttached(id) else { return }
        let index = Int(id.index)
        if entries[index].run.isEmpty { touched.append(id.index) }
        entries[index].run.append(completion)
    }

    /// The next target with undelivered completions; they are taken out. Nil when all were delivered.
    mutating func takeRun() -> (target: any CompletionTarget, index: Int, run: ContiguousArray<Completion>)? {
        while nextTouched < touched.count {
            let index = Int(touched[nextTouched])
            nextTouched &+= 1
            guard let target = entries[index].target, !entries[index].run.isEmpty else { continue }
            var run: ContiguousArray<Completion> = []
            swap(&run, &entries[index].run)
            return (target, index, run)
        }
        touched.removeAll(keepingCapacity: true)
        nextTouched = 0
        return nil
    }

    /// Gives back the storage of a delivered run.
    mutating func recycle(_ run: consuming ContiguousArray<Completion>, index: Int) {
        guard entries[index].run.isEmpty else { return }
        run.removeAll(keepingCapacity: true)
        entries[index].run = run
    }
}
