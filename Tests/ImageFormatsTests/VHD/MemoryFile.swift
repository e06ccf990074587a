// A file in memory that records what happens to it, and can be put back to any instant of its past.

import SystemPackage
import Testing

@testable import ImageFormats

final class MemoryFile: ImageTarget {
    enum Event {
        case write(offset: Int, bytes: [UInt8])
        case flush
    }

    private(set) var bytes: [UInt8]
    /// The contents that `events` began with.
    private(set) var base: [UInt8]
    private(set) var events: [Event] = []
    /// Writes that make the file longer than this fail.
    var limit = Int.max

    init(_ bytes: [UInt8]) {
        self.bytes = bytes
        base = bytes
    }

    convenience init(_ draft: ImageDraft) {
        var bytes = [UInt8](repeating: 0, count: Int(draft.byteCount))
        for piece in draft.pieces {
            bytes.replaceSubrange(Int(piece.offset)..<Int(piece.offset) + piece.bytes.count, with: piece.bytes)
        }
        self.init(bytes)
    }

    var byteCount: UInt64 { UInt64(bytes.count) }

    func read(at offset: UInt64, count: Int) throws(Errno) -> [UInt8] {
        let start = Int(clamping: offset)
        guard start < bytes.count else { return [UInt8](repeating: 0, count: count) }
        let found = bytes[start..<min(bytes.count, start + count)]
        return Array(found) + [UInt8](repeating: 0, count: count - found.count)
    }

    func write(_ new: [UInt8], at offset: UInt64) throws(Errno) {
        let start = Int(offset)
        guard start + new.count <= max(limit, bytes.count) else { throw .noSpace }
        MemoryFile.apply(new, at: start, to: &bytes)
        events.append(.write(offset: start, bytes: new))
    }

    func flush() throws(Errno) { events.append(.flush) }

    /// Forgets the past.
    func settle() {
        base = bytes
        events = []
    }

    private static func apply(_ new: [UInt8], at start: Int, to bytes: inout [UInt8]) {
        if start + new.count > bytes.count {
            bytes += [UInt8](repeating: 0, count: start + new.count - bytes.count)
        }
        bytes.replaceSubrange(start..<start + new.count, with: new)
    }

    /// The file after the power failed behind the first `count` events: what was flushed is there, and of later writes
    /// each sector by chance, so that writes are torn as well.
    func afterPowerLoss(_ count: Int, _ chance: inout some RandomNumberGenerator) -> MemoryFile {
        var bytes = base
        let past = events.prefix(count)
        let durable = past.lastIndex { if case .flush = $0 { true } else { false } } ?? 0
        for (index, event) in past.enumerated() {
            guard case .write(let offset, let new) = event else { continue }
            if index < durable {
                MemoryFile.apply(new, at: offset, to: &bytes)
                continue
            }
            var place = 0
            while place < new.count {
                let next = min(new.count, ((offset + place) / 512 + 1) * 512 - offset)
                if Bool.random(using: &chance) {
                    MemoryFile.apply(Array(new[place..<next]), at: offset + place, to: &bytes)
                }
                place = next
            }
        }
        return MemoryFile(bytes)
    }

    /// The file after the process was killed there: what it had written is there.
    func afterKill(_ count: Int) -> MemoryFile {
        var bytes = base
        for case .write(let offset, let new) in events.prefix(count) {
            MemoryFile.apply(new, at: offset, to: &bytes)
        }
        return MemoryFile(bytes)
    }
}

/// A generator with a seed: a failure can be repeated.
struct Chance: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        let mixed = (state ^ state >> 30) &* 0xBF58_476D_1CE4_E5B9
        return mixed ^ mixed >> 27
    }
}
