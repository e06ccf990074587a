// What a disk must hold: each sector's values, from the oldest that may still be there after a power failure to the newest.

import Testing

@testable import ImageFormats

/// Sectors carry stamps: a number that no other write has. 0 are zeroes, and negative ones what a parent has there.
struct DiskModel {
    struct Value: Equatable {
        var stamp: Int
        /// Events of the leaf's file when it was answered; nil: not answered yet.
        var answeredAt: Int?
    }
    private(set) var sectors: [[Value]]
    private var flushedAt = -1

    init(_ stamps: [Int]) { sectors = stamps.map { [Value(stamp: $0, answeredAt: -1)] } }

    static func bytes(_ stamp: Int) -> [UInt8] {
        if stamp == 0 { return [UInt8](repeating: 0, count: 512) }
        var bytes = [UInt8](repeating: 0, count: 512)
        for index in 0..<64 { bytes.putBigEndian(Int64(stamp), at: index * 8) }
        return bytes
    }

    /// nil: no stamp, or a torn one: its first and last words differ.
    static func stamp(_ bytes: [UInt8], sector: Int) -> Int? {
        guard let first: Int64 = bytes.bigEndian(at: sector * 512),
            let last: Int64 = bytes.bigEndian(at: sector * 512 + 504)
        else { return nil }
        return first == last ? Int(first) : nil
    }

    mutating func begin(_ sector: Int, _ stamp: Int) { sectors[sector].append(Value(stamp: stamp)) }

    mutating func answered(_ sector: Int, _ stamp: Int, at event: Int, failed: Bool) {
        guard let index = sectors[sector].lastIndex(where: { $0.stamp == stamp && $0.answeredAt == nil }) else {
            return
        }
        // Of a write that failed nothing is promised: either value.
        if !failed { sectors[sector][index].answeredAt = event }
    }

    /// What a sector may hold once everything answered has survived.
    func allowed(_ sector: Int, answeredBefore event: Int) -> [Int] {
        let values = sectors[sector]
        let last = values.lastIndex { $0.answeredAt.map { $0 <= event } ?? false } ?? 0
        return values[last...].map(\.stamp)
    }
}

/// Random work on an image, with a model of what must come out.
final class Workload {
    let rig: EngineRig
    var model: DiskModel
    private var nextStamp = 1
    private var under: [Int: (kind: EngineRequestKind, sectors: Range<Int>, stamp: Int)] = [:]
    private var busy: Set<Int> = []
    let leaf: FakeFile
    let sectors: Int
    /// The file's events when each flush was begun that has been answered: (begun, answered).
    private(set) var flushes: [(begun: Int, answered: Int)] = []
    private var flushesUnder: [Int: Int] = [:]
    private(set) var failures = 0
    private(set) var largest = 40

    init(_ rig: EngineRig, parent: [Int]) {
        self.rig = rig
        leaf = rig.files[0]
        sectors = parent.count
        model = DiskModel(parent)
        rig.answered = { [unowned self] name, errno in self.ended(name, errno != nil) }
    }

    /// Starts one request at random: writes, reads, discards of sectors that no other request is on, and flushes.
    func beginOne() {
        let kind: EngineRequestKind =
            switch rig.dice.below(20) {
            case 0..<10: .write
            case 10..<14: .read
            case 14..<18: .discard
            default: .flush
            }
        if kind == .flush {
            let begun = leaf.events.count
            let name = rig.begin(.flush, 0, 0)
            if rig.answers[name] == nil {
                flushesUnder[name] = begun
            } else {
                flushes.append((begun, leaf.events.count))
            }
            return
        }
        // Often at few places, so that requests meet in one cluster.
        let start =
            rig.dice.below(2) == 0
            ? rig.dice.below(sectors) : min(sectors - 1, rig.dice.below(4) * sectors / 4 + rig.dice.below(24))
        let count = min(1 + rig.dice.below(rig.dice.below(4) == 0 ? largest * 8 : largest), sectors - start)
        let range = start..<start + count
        guard !range.contains(where: { busy.contains($0) }) else { return }
        let stamp = kind == .write ? nextStamp : 0
        if kind == .write { nextStamp += 1 }
        for sector in range { busy.insert(sector) }
        if kind != .read { for sector in range { model.begin(sector, stamp) } }
        let bytes = kind == .write ? range.flatMap { _ in DiskModel.bytes(stamp) } : []
        let name = rig.begin(kind, UInt64(start) * 512, count * 512, bytes)
        under[name] = (kind, range, stamp)
        if let answer = rig.answers[name] { ended(name, answer != nil) }
    }

    private func ended(_ name: Int, _ failed: Bool) {
        if failed { failures += 1 }
        if let begun = flushesUnder.removeValue(forKey: name), !failed { flushes.append((begun, leaf.events.count)) }
        guard let (kind, range, stamp) = under.removeValue(forKey: name) else { return }
        for sector in range { busy.remove(sector) }
        let event = leaf.events.count
        switch kind {
        case .write: for sector in range { model.answered(sector, stamp, at: event, failed: failed) }
        case .read:
            if failed { break }
            guard let bytes = try? rig.finish(name) else { break }
            for (index, sector) in range.enumerated() {
                let found = DiskModel.stamp(bytes, sector: index)
                let allowed = model.allowed(sector, answeredBefore: .max - 1)
                #expect(
                    found.map { allowed.contains($0) } ?? false,
                    "sector \(sector) reads \(found ?? -99), not one of \(allowed)"
                )
            }
        // Parts of clusters may keep what they had: both stay allowed, unless the next write says otherwise.
        case .discard, .zero, .flush: break
        }
    }

    /// Compares a disk, read through another engine, with the model.
    func compare(_ bytes: [UInt8], answeredBefore event: Int, _ what: @autoclosure () -> String) {
        for sector in 0..<sectors {
            let found = DiskModel.stamp(bytes, sector: sector)
            let allowed = model.allowed(sector, answeredBefore: event)
            if !(found.map { allowed.contains($0) } ?? false) {
                Issue.record(
                    "\(what()): sector \(sector) has \(found.map { "\($0)" } ?? "a mixture"), not one of \(allowed)"
                )
                return
            }
        }
    }

    /// The last event that was answered before a flush began that had been answered when `event` happened.
    func durable(at event: Int) -> Int { flushes.filter { $0.answered <= event }.map(\.begun).max() ?? -1 }
}
