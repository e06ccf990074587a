// How a loop delivers finished operations: targets, their names, and batches of results.

/// The owner of operations, which receives their results; usually a ring's queue.
public protocol CompletionTarget: AnyObject, Sendable {
    /// Results of this target's operations since the last call, in the order in which they finished.
    ///
    /// Called on the loop, at most once per wake-up. The target may start operations, attach and detach in here.
    func completed(_ completions: borrowing CompletionBatch)
}

/// The name of an attached target on its loop. It is never reused, so a stale one is recognised and ignored.
public struct TargetID: Hashable, Sendable {
    let index: UInt32
    let generation: UInt32
}

/// One finished operation.
public struct Completion: Sendable {
    /// The number that the target gave to the operation.
    public let slot: UInt32
    /// As in a completion queue entry: at least 0 (bytes moved, or a mask of poll(2) events), or a negated `errno`.
    public let result: Int32

    @inlinable
    public init(slot: UInt32, result: Int32) {
        self.slot = slot
        self.result = result
    }
}

/// The operations of one target that finished during one wake-up of its loop. Never empty.
public struct CompletionBatch: ~Copyable, Sendable {
    @usableFromInline var items: ContiguousArray<Completion>

    /// A batch of the given completions, for tests of targets.
    public init(_ items: ContiguousArray<Completion>) { self.items = items }

    /// Completions in the batch.
    @inlinable public var count: Int { items.count }

    /// The completion at `position`, which must be below `count`.
    @inlinable
    public subscript(position: Int) -> Completion { items[position] }

    consuming func takeStorage() -> ContiguousArray<Completion> { items }
}
