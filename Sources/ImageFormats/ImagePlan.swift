// A change of an image as ordered steps: what is written where, and what must be there before.

/// The steps of one change. Steps between two separators (`order`, `flush`) run side by side; a separator is passed when
/// all before it have ended. Its arrays are reused: in steady state nothing is allocated.
///
/// Ordering rules for every format, so that at any crash point there are at most leaks:
/// - space is accounted for (refcount, bitmap, footer) durably before a table names it;
/// - what a table names is written before the table;
/// - what must not be lost with the old mapping (copied bytes) is durable before the new one;
/// - space is given back only after what named it is durably gone.
///
/// A change is answered after its last step, so that everything an answer promises has been handed to the kernel: it
/// survives the death of this process. Power loss may lose what no flush has covered, never the rules above.
public struct ImagePlan {
    public enum Step: Equatable, Sendable {
        /// The request's bytes, without its first `skip` (counted from the plan's range), go to `offset` of the file.
        case guest(skip: UInt64, count: UInt64, offset: UInt64)
        /// What the disk reads at `disk` now goes to `offset` of the file: copy-on-write.
        case keep(disk: UInt64, count: UInt64, offset: UInt64)
        /// Bytes of the file itself are copied: a table that others use too.
        case copy(from: UInt64, count: UInt64, offset: UInt64)
        /// Zeroes are written to the file.
        case zeroes(offset: UInt64, count: UInt64)
        /// A big-endian value of `width` bytes (1, 2, 4, 8) is stored in the metadata; it does not cross a sector.
        case store(value: UInt64, width: UInt8, offset: UInt64)
        /// The file's blocks are given back to the host; they read as zeroes then, where the host can.
        case punch(offset: UInt64, count: UInt64)
        /// All before has ended before anything after begins.
        case order
        /// The same, and all before is durable.
        case flush
    }

    public var steps: [Step] = []
    /// The format's own notes: what it reserved, what is to be freed. The engine does not look at them.
    public var notes: [Note] = []

    /// A run of the file's bytes with a word of the format's.
    public struct Note: Equatable, Sendable {
        public var kind: UInt8
        public var offset: UInt64
        public var count: UInt64

        public init(kind: UInt8, offset: UInt64, count: UInt64) {
            self.kind = kind
            self.offset = offset
            self.count = count
        }
    }

    public init() {
        steps.reserveCapacity(32)
        notes.reserveCapacity(16)
    }

    public mutating func removeAll() {
        steps.removeAll(keepingCapacity: true)
        notes.removeAll(keepingCapacity: true)
    }
}
