// Values of BackendCore: grant cache, log limits, histogram.

internal import BackendCore
internal import Hypervisor
internal import SharedRing
internal import SimulatedHypervisor
internal import TestSupport
internal import Testing
internal import XenWire

@Suite struct CoreValueTests {
    @Test func theGrantCacheKeepsWhatIsUsedAndDropsTheOldest() throws {
        let machine = try SimulatedMachine()
        let domain = guestDomain
        try machine.createDomain(domain)
        let (host, guest) = (try machine.hypervisor(for: .initial), try machine.hypervisor(for: domain))
        let grant = try guest.sharing.share(pageCount: 4, with: .initial, access: .readWrite)
        var cache = PersistentGrantCache(limit: 3)
        for (index, reference) in grant.references.prefix(3).enumerated() {
            let page = try host.grants.map([reference], of: domain, access: .readWrite)
            cache.insert(reference, page, now: UInt64(index))
        }
        #expect(cache.isFull && machine.usage(of: domain)?.pagesMappedByOthers == 3)
        #expect(cache.lookup(grant.references[0], now: 10) != nil)
        cache.insert(
            grant.references[3],
            try host.grants.map([grant.references[3]], of: domain, access: .readWrite),
            now: 11
        )
        #expect(cache.lookup(grant.references[1], now: 12) == nil)
        #expect(machine.usage(of: domain)?.pagesMappedByOthers == 3)
        #expect(cache.oldestUse == 2)
        #expect(cache.release(unusedSince: 11) == 2)
        #expect(cache.count == 1 && machine.usage(of: domain)?.pagesMappedByOthers == 1)
        cache.removeAll()
        #expect(cache.isEmpty && machine.usage(of: domain)?.pagesMappedByOthers == 0)
    }

    @Test func theLimiterRefusesAndCounts() {
        let start = ContinuousClock.now
        var limiter = RateLimiter(burst: 2, interval: .seconds(10), now: start)
        #expect(limiter.allow(now: start) == 0)
        #expect(limiter.allow(now: start) == 0)
        #expect(limiter.allow(now: start) == nil)
        #expect(limiter.allow(now: start + .seconds(9)) == nil)
        #expect(limiter.allow(now: start + .seconds(11)) == 2)
        #expect(limiter.allow(now: start + .seconds(12)) == nil)
        #expect(limiter.allow(now: start + .seconds(100)) == 1)
        #expect(limiter.allow(now: start + .seconds(100)) == 0)
        #expect(limiter.allow(now: start + .seconds(100)) == nil)
    }

    @Test func histogramBucketsArePowersOfTwoMicroseconds() {
        #expect(LatencyHistogram.bucket(nanoseconds: 999) == 0)
        #expect(LatencyHistogram.bucket(nanoseconds: 1000) == 1)
        #expect(LatencyHistogram.bucket(nanoseconds: 3999) == 2)
        #expect(LatencyHistogram.bucket(nanoseconds: 4000) == 3)
        #expect(LatencyHistogram.bucket(nanoseconds: .max) == LatencyHistogram.bucketCount - 1)
        var histogram = LatencyHistogram()
        for _ in 0..<99 { histogram.add(nanoseconds: 5000) }
        histogram.add(nanoseconds: 1_000_000)
        #expect(histogram.percentile(0.5) == 8)
        #expect(histogram.percentile(0.99) == 8)
        #expect(histogram.percentile(1) == 1024)
        #expect(LatencyHistogram().percentile(0.5) == 0)
    }
}
