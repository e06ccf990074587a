// Power fails, and processes die, at every write of a VHD: its structures stay valid, and what was flushed is there.

import Testing

@testable import ImageFormats

@Suite struct VHDCrashTests {
    /// What each sector may be: what the last flush covered, and all that was written since.
    private struct Model {
        struct Write {
            let event: Int
            let sectors: Range<UInt64>
            let value: UInt8?
        }
        var writes: [Write] = []
        /// Events when a flush had ended.
        var flushes: [Int] = [0]

        func allowed(_ sector: UInt64, at event: Int, _ base: UInt8?) -> Set<UInt8?> {
            let flush = flushes.last { $0 <= event } ?? 0
            let past = writes.filter { $0.sectors.contains(sector) && $0.event <= event }
            let durable = past.last { $0.event < flush }.map(\.value) ?? base
            return Set([durable] + past.filter { $0.event >= flush }.map(\.value))
        }

        /// What it is when nothing is lost: the last write that has ended, or one that was under way.
        func answered(_ sector: UInt64, at event: Int, _ ends: [Int], _ base: UInt8?) -> Set<UInt8?> {
            let past = writes.enumerated().filter { $0.element.sectors.contains(sector) && $0.element.event <= event }
            let done = past.last { ends[$0.offset] <= event }
            let running = past.filter { ends[$0.offset] > event }.map { $0.element.value }
            return Set([done.map { $0.element.value } ?? base] + running)
        }
    }

    /// Writes, zeros, discards and flushes by chance.
    private func run(seed: UInt64, isChild: Bool, _ body: (Disk, Model, [Int]) throws -> Void) throws {
        var chance = Chance(state: seed)
        let disk = try Disk.small(isChild: isChild)
        var model = Model()
        var ends: [Int] = []
        for number in 1...40 as ClosedRange<UInt8> {
            let sector = UInt64.random(in: 0..<24500, using: &chance)
            let count = [1, 3, 8, 70].randomElement(using: &chance) ?? 1
            let range = sector..<sector + UInt64(count)
            switch Int.random(in: 0..<8, using: &chance) {
            case 0:
                try disk.runner.flush()
                model.flushes.append(disk.file.events.count)
            case 1:
                model.writes.append(Model.Write(event: disk.file.events.count, sectors: range, value: 0))
                try disk.change(.zero, sector: sector, count: UInt64(count))
                ends.append(disk.file.events.count)
            default:
                model.writes.append(Model.Write(event: disk.file.events.count, sectors: range, value: number))
                try disk.write(number, sector: sector, count: UInt64(count))
                ends.append(disk.file.events.count)
            }
        }
        try body(disk, model, ends)
    }

    private func sectors(_ model: Model) -> Set<UInt64> {
        Set(model.writes.flatMap { [$0.sectors.lowerBound, $0.sectors.upperBound - 1, $0.sectors.upperBound] })
    }

    @Test(arguments: [false, true])
    func powerLoss(_ isChild: Bool) throws {
        for seed in 1...2 as ClosedRange<UInt64> {
            try run(seed: seed, isChild: isChild) { disk, model, _ in
                var chance = Chance(state: seed)
                for event in stride(from: 0, through: disk.file.events.count, by: 12) {
                    let left = disk.file.afterPowerLoss(event, &chance)
                    let report = try VHDFormat.check(left)
                    #expect(report.corruptions == 0, "seed \(seed), event \(event): \(report.findings)")
                    let again = try Disk(left)
                    for sector in sectors(model) {
                        let value = try again.sectors(sector, count: 1)[0]
                        let allowed = model.allowed(sector, at: event, isChild ? nil : 0)
                        #expect(allowed.contains(value), "seed \(seed), event \(event), sector \(sector)")
                    }
                }
            }
        }
    }

    /// A successor finds everything that was answered, goes on, and leaves a clean image.
    @Test(arguments: [false, true])
    func killed(_ isChild: Bool) throws {
        for seed in 5...6 as ClosedRange<UInt64> {
            try run(seed: seed, isChild: isChild) { disk, model, ends in
                for event in stride(from: 0, through: disk.file.events.count, by: 12) {
                    let left = disk.file.afterKill(event)
                    #expect(try VHDFormat.check(left).corruptions == 0)
                    let again = try Disk(left)
                    for sector in sectors(model) {
                        let value = try again.sectors(sector, count: 1)[0]
                        let allowed = model.answered(sector, at: event, ends, isChild ? nil : 0)
                        #expect(allowed.contains(value), "seed \(seed), event \(event), sector \(sector)")
                    }
                    try again.runner.upkeep(isClosing: false)
                    try again.write(99, sector: 20_000, count: 9)
                    try again.close()
                    let report = try VHDFormat.check(again.file)
                    #expect(report.corruptions == 0 && report.findings.allSatisfy { $0.text.contains("not used") })
                }
            }
        }
    }
}
