// Carries a format's plans out one after the other on a file in memory: the rules of ImagePlan to the letter.

import SystemPackage
import Testing

@testable import ImageFormats

/// Reads and writes a disk through its format, without its parents.
final class PlanRunner<Format: ImageFormat> {
    let format: Format
    let file: MemoryFile
    let cache: MetadataCache
    private var plan = ImagePlan()

    init(_ format: Format, _ file: MemoryFile) throws {
        self.format = format
        self.file = file
        cache = try MetadataCache(capacity: 0)
    }

    private let page = UInt64(MetadataCache.pageBytes)

    /// Brings a page into the cache.
    private func load(_ offset: UInt64) throws {
        let number = offset / page
        let place = try #require(cache.find(number) ?? cache.admit(number))
        if cache.places[place].isValid { return }
        let bytes = try file.read(at: number * page, count: Int(page))
        for word in 0..<Int(page) / 8 {
            let value: UInt64 = bytes.bigEndian(at: word * 8) ?? 0
            _ = cache.store(value, width: 8, at: word * 8, in: place)
        }
        cache.places[place].written = cache.places[place].version
        cache.places[place].isValid = true
    }

    private func again<Answer>(_ ask: () -> Answer, _ missing: (Answer) -> UInt64?) throws -> Answer {
        // A plan needs no more pages than fit.
        for _ in 0..<MetadataCache.minimumPages {
            let answer = ask()
            guard let offset = missing(answer) else { return answer }
            try load(offset)
        }
        throw ImageFault(.corrupt, "asks for pages without end")
    }

    /// What the disk has; `nil` sectors are the parent's.
    func read(_ range: DiskRange) throws -> [UInt8?] {
        var found: [UInt8?] = []
        var rest = range
        while !rest.isEmpty {
            let place = try again(
                { format.place(rest, cache) },
                { if case .metadata(let offset) = $0 { offset } else { nil } }
            )
            let count: UInt64
            switch place {
            case .zero(let zeros):
                count = zeros
                found += repeatElement(0, count: Int(zeros))
            case .parent(let absent):
                count = absent
                found += repeatElement(nil, count: Int(absent))
            case .data(let offset, let present):
                count = present
                found += try file.read(at: offset, count: Int(present)).map { $0 }
            case .compressed, .metadata, .fault: throw ImageFault(.corrupt, "\(place)")
            }
            #expect(count > 0 && count <= rest.count)
            rest = rest.dropping(count)
        }
        return found
    }

    func change(_ change: ImageChange, _ range: DiskRange, _ bytes: [UInt8] = []) throws {
        var rest = range
        while !rest.isEmpty {
            let done = rest.start - range.start
            if change == .write {
                let place = try again(
                    { format.placeWrite(rest, cache) },
                    { if case .metadata(let offset) = $0 { offset } else { nil } }
                )
                if case .inPlace(let offset, let count) = place {
                    try file.write(Array(bytes[Int(done)..<Int(done + count)]), at: offset)
                    rest = rest.dropping(count)
                    continue
                }
                guard place == .change else { throw ImageFault(.corrupt, "\(place)") }
            }
            let outcome = try again(
                { format.plan(change, rest, cache, &plan) },
                { if case .metadata(let offset) = $0 { offset } else { nil } }
            )
            guard case .planned(let count) = outcome else {
                if case .refused(let fault) = outcome { throw fault }
                throw ImageFault(.corrupt, "\(outcome)")
            }
            let units = rest.start / format.facts.unitBytes
            #expect(rest.start + count == rest.end || (rest.start + count) / format.facts.unitBytes > units)
            try carryOut(Array(bytes.dropFirst(Int(done))))
            rest = rest.dropping(count)
        }
    }

    func flush() throws {
        format.flushBegan()
        try file.flush()
        format.flushEnded(succeeded: true)
    }

    func upkeep(isClosing: Bool) throws {
        while true {
            let outcome = try again(
                { format.planUpkeep(isClosing: isClosing, cache, &plan) },
                { if case .metadata(let offset) = $0 { offset } else { nil } }
            )
            if outcome == .nothing { return }
            guard outcome == .planned(count: 0) else { throw ImageFault(.corrupt, "\(outcome)") }
            try carryOut([])
        }
    }

    private func carryOut(_ bytes: [UInt8]) throws {
        defer { plan.removeAll() }
        var hasTouched = false
        do throws(Errno) {
            for step in plan.steps { try carryOut(step, bytes, &hasTouched) }
            format.ended(plan, .committed)
        } catch {
            format.ended(plan, hasTouched ? .unclear : .failed)
            throw error
        }
    }

    private func carryOut(_ step: ImagePlan.Step, _ bytes: [UInt8], _ hasTouched: inout Bool) throws(Errno) {
        switch step {
        case .guest(let skip, let count, let offset):
            try file.write(Array(bytes[Int(skip)..<Int(skip + count)]), at: offset)
        case .zeroes(let offset, let count), .punch(let offset, let count):
            try file.write([UInt8](repeating: 0, count: Int(count)), at: offset)
        case .store(let value, let width, let offset):
            hasTouched = true
            guard let place = cache.find(offset / page), cache.places[place].isValid else { throw .ioError }
            #expect(offset / 512 == (offset + UInt64(width) - 1) / 512)
            _ = cache.store(value, width: Int(width), at: Int(offset % page), in: place)
            cache.places[place].written = cache.places[place].version
            // The sector around it, as the cache has it.
            let sector = offset / 512 * 512
            var text: [UInt8] = []
            for word in 0..<64 as Range<UInt64> {
                let value = cache.u64(at: sector + word * 8) ?? 0
                for shift in stride(from: 56, through: 0, by: -8) {
                    text.append(UInt8(truncatingIfNeeded: value >> UInt64(shift)))
                }
            }
            try file.write(text, at: sector)
        case .order: break
        case .flush: try file.flush()
        case .keep, .copy: throw .notSupported
        }
    }
}
