// Counts of what a piece of code allocates, retains and releases.

internal import CBench

/// Allocations of C and objects, retains and releases of Swift.
struct Counters {
    private(set) var allocations: UInt64 = 0
    private(set) var objects: UInt64 = 0
    private(set) var retains: UInt64 = 0
    private(set) var releases: UInt64 = 0

    /// Runs `body` and adds what it did. `body` must touch no strings (CBench.h).
    @inline(never)
    mutating func count<Failure: Error>(_ body: () throws(Failure) -> Void) throws(Failure) {
        bench_count_swift(true)
        defer { bench_count_swift(false) }
        let before = bench_counts()
        try body()
        let after = bench_counts()
        allocations &+= after.allocations &- before.allocations
        objects &+= after.objects &- before.objects
        retains &+= after.retains &- before.retains
        releases &+= after.releases &- before.releases
    }

    /// A counter that always says 0 proves nothing: counts something that allocates, retains and releases.
    static func check() throws {
        var seen = Counters()
        var kept: [Probe] = []
        seen.count { for number in 0..<100 { kept.append(Probe(number)) } }
        var others: [Probe] = []
        seen.count { for probe in kept { others.append(probe) } }
        seen.count {
            kept.removeAll()
            others.removeAll()
        }
        guard seen.allocations >= 100, seen.objects >= 100, seen.retains >= 100, seen.releases >= 100 else {
            throw CountersBlind(seen: "\(seen)")
        }
    }

    private final class Probe {
        let number: Int
        init(_ number: Int) { self.number = number }
    }
}

/// This program's counters do not count here: another C library, or a runtime without the switch.
struct CountersBlind: Error, CustomStringConvertible {
    let seen: String
    var description: String { "the counters see less than there is: \(seen)" }
}
