// A raw file as a layer of a chain: the parent of formatted images, and whatever converts.

/// The disk is the file.
public final class RawFormat: ImageFormat {
    public let facts: FormatFacts

    /// - Parameter byteCount: the file's; the last part of a sector counts as a whole one, and reads as zeroes.
    public init(byteCount: UInt64) {
        facts = FormatFacts(
            name: "raw",
            byteCount: byteCount > UInt64(Int64.max) ? UInt64(Int64.max) & ~511 : (byteCount &+ 511) & ~511,
            unitBytes: 512,
            discardGranularity: 512,
            writeUnit: 512,
            parent: nil,
            compressedClusterBytes: 0
        )
    }

    public func place(_ range: DiskRange, _ cache: MetadataCache) -> Placement {
        .data(offset: range.start, count: range.count)
    }

    public func placeWrite(_ range: DiskRange, _ cache: MetadataCache) -> WritePlacement {
        .inPlace(offset: range.start, count: range.count)
    }

    public func plan(
        _ change: ImageChange,
        _ range: DiskRange,
        _ cache: MetadataCache,
        _ plan: inout ImagePlan
    ) -> PlanOutcome {
        plan.removeAll()
        switch change {
        case .write: plan.steps.append(.guest(skip: 0, count: range.count, offset: range.start))
        case .zero: plan.steps.append(.zeroes(offset: range.start, count: range.count))
        case .discard: plan.steps.append(.punch(offset: range.start, count: range.count))
        }
        return .planned(count: range.count)
    }

    public func ended(_ plan: borrowing ImagePlan, _ end: PlanEnd) {}

    public func planUpkeep(isClosing: Bool, _ cache: MetadataCache, _ plan: inout ImagePlan) -> PlanOutcome { .nothing }

    public func flushBegan() {}
    public func flushEnded(succeeded: Bool) {}
    public var wantsFlush: Bool { false }
}
