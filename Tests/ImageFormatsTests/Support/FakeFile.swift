// A file in memory that remembers every write and flush, so that the power can fail at any of them.

import Glibc
import ImageFormats
import SystemPackage

/// What happened to a file, in the order in which it ended.
enum FileEvent {
    case write(offset: Int, bytes: [UInt8])
    case punch(offset: Int, count: Int)
    /// All events before this number are durable.
    case flush(covers: Int)
}

final class FakeFile: ImageTarget {
    private(set) var bytes: [UInt8] = []
    let start: [UInt8]
    private(set) var events: [FileEvent] = []
    /// Blocks of 4 KiB that may be written beside those that have been; then there is ENOSPC.
    var room = Int.max
    private var blocks: Set<Int> = []
    /// Every so many writes one fails with EIO; 0: none.
    var failsEvery = 0
    private var writes = 0

    init(_ bytes: [UInt8]) {
        self.bytes = bytes
        start = bytes
    }

    convenience init(_ draft: ImageDraft) {
        var bytes = [UInt8](repeating: 0, count: Int(draft.byteCount))
        for piece in draft.pieces {
            bytes.replaceSubrange(Int(piece.offset)..<Int(piece.offset) + piece.bytes.count, with: piece.bytes)
        }
        self.init(bytes)
    }

    convenience init(path: String) throws {
        self.init(try FakeFile.contents(path))
    }

    static func contents(_ path: String) throws -> [UInt8] {
        let file = try FileDescriptor.open(FilePath(path), .readOnly)
        defer { try? file.close() }
        var bytes = [UInt8](repeating: 0, count: Int(try file.seek(offset: 0, from: .end)))
        var done = 0
        while done < bytes.count {
            let count = try unsafe bytes.withUnsafeMutableBytes {
                try unsafe file.read(
                    fromAbsoluteOffset: Int64(done),
                    into: UnsafeMutableRawBufferPointer(rebasing: $0[done...])
                )
            }
            if count == 0 { break }
            done += count
        }
        return bytes
    }

    static func save(_ bytes: [UInt8], _ path: String) throws {
        let file = try FileDescriptor.open(
            FilePath(path),
            .writeOnly,
            options: [.create, .truncate],
            permissions: .ownerReadWrite
        )
        defer { try? file.close() }
        try file.writeAll(bytes)
    }

    var byteCount: UInt64 { UInt64(bytes.count) }

    func read(at offset: UInt64, count: Int) -> [UInt8] {
        let start = Int(min(offset, UInt64(bytes.count)))
        let end = min(start + count, bytes.count)
        return Array(bytes[start..<end]) + [UInt8](repeating: 0, count: count - (end - start))
    }

    func write(_ new: [UInt8], at offset: UInt64) throws(Errno) {
        for block in Int(offset) / 4096...(Int(offset) + new.count - 1) / 4096 where !blocks.contains(block) {
            if room == 0 { throw .noSpace }
            if room < .max { room -= 1 }
            blocks.insert(block)
        }
        writes += 1
        if failsEvery > 0, writes % failsEvery == 0 { throw .ioError }
        FakeFile.put(new, at: Int(offset), in: &bytes)
        events.append(.write(offset: Int(offset), bytes: new))
    }

    func punch(_ offset: Int, _ count: Int) {
        FakeFile.clear(offset, count, in: &bytes)
        events.append(.punch(offset: offset, count: count))
    }

    func flush() { flush(covers: events.count) }
    func flush(covers: Int) { events.append(.flush(covers: covers)) }

    private static func put(_ new: [UInt8], at offset: Int, in bytes: inout [UInt8]) {
        if offset + new.count > bytes.count { bytes += [UInt8](repeating: 0, count: offset + new.count - bytes.count) }
        bytes.replaceSubrange(offset..<offset + new.count, with: new)
    }

    private static func clear(_ offset: Int, _ count: Int, in bytes: inout [UInt8]) {
        let end = min(offset + count, bytes.count)
        if offset < end { bytes.replaceSubrange(offset..<end, with: [UInt8](repeating: 0, count: end - offset)) }
    }

    /// The file after the first `count` events: what a killed process leaves.
    func killed(after count: Int) -> [UInt8] {
        var bytes = start
        for event in events.prefix(count) { FakeFile.apply(event, to: &bytes) { _ in true } }
        return bytes
    }

    /// What a power failure after the first `count` events leaves: all that the last flush covered, and of the rest each
    /// sector or not, as `isKept` says.
    func powerless(after count: Int, isKept: () -> Bool) -> [UInt8] {
        var durable = 0
        for event in events.prefix(count) { if case .flush(let covers) = event { durable = max(durable, covers) } }
        var bytes = start
        for (index, event) in events.prefix(count).enumerated() {
            FakeFile.apply(event, to: &bytes) { _ in index < durable || isKept() }
        }
        return bytes
    }

    private static func apply(_ event: FileEvent, to bytes: inout [UInt8], isKept: (Int) -> Bool) {
        switch event {
        case .flush: break
        case .punch(let offset, let count): if isKept(offset) { clear(offset, count, in: &bytes) }
        case .write(let offset, let new):
            var position = 0
            while position < new.count {
                let count = min(512 - (offset + position) % 512, new.count - position)
                if isKept(offset + position) {
                    put(Array(new[position..<position + count]), at: offset + position, in: &bytes)
                }
                position += count
            }
        }
    }
}

/// A generator that can be repeated.
struct Dice: RandomNumberGenerator {
    private var state: UInt64
    init(_ seed: UInt64) { state = seed &* 0x9E37_79B9_7F4A_7C15 | 1 }
    mutating func next() -> UInt64 {
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        return state &* 0x2545_F491_4F6C_DD1D
    }
    mutating func below(_ limit: Int) -> Int { Int(next() >> 33) % limit }
}
