// The multicast list, and the account of what a frontend may send.

import Testing
import XenWire

@Suite struct MulticastFilters {
    private func group(_ number: UInt8) -> MACAddress { MACAddress(0x33, 0x33, 0, 0, 0, number) }

    @Test func whatPasses() {
        var filter = MulticastFilter()
        #expect(filter.passes(MACAddress(0, 0x16, 0x3E, 0, 0, 1)))
        #expect(filter.passes(.broadcast))
        #expect(!filter.passes(group(1)))
        #expect(filter.perform(.add(group(1))) == .okay)
        #expect(filter.passes(group(1)) && !filter.passes(group(2)))
        #expect(filter.perform(.delete(group(2))) == .okay)
        #expect(filter.perform(.delete(group(1))) == .okay)
        #expect(!filter.passes(group(1)))
    }

    @Test func theListEnds() {
        var filter = MulticastFilter()
        for number in 0..<64 as Range<UInt8> { #expect(filter.perform(.add(group(number))) == .okay) }
        #expect(filter.perform(.add(group(64))) == .error)
        #expect(filter.perform(.add(group(63))) == .okay, "it is there already")
        #expect(filter.count == 64)
        filter.remove(group(0))
        #expect(filter.perform(.add(group(64))) == .okay)
        filter.removeAll()
        #expect(filter.count == 0 && !filter.passes(group(64)))
    }
}

@Suite struct TransmitRates {
    @Test func parsed() {
        #expect(TransmitRate(text: "62500,50000") == TransmitRate(bytes: 62500, microseconds: 50000))
        #expect(TransmitRate(text: "18446744073709551615,4294967295")?.bytes == .max)
    }

    @Test(arguments: [
        "", ",", "1", "1,", ",1", "1,1,1", "0,1", "1,0", " 1,1", "1, 1", "1,1\n", "-1,1", "+1,1", "1,4294967296",
        "18446744073709551616,1", "1.5,1", "0x10,1", "a,b",
    ])
    func nonsense(_ text: String) { #expect(TransmitRate(text: text) == nil) }

    @Test func creditComesWithTheIntervals() {
        let rate = TransmitRate(bytes: 1000, microseconds: 50)!
        var bucket = CreditBucket(rate: rate, now: 7)
        #expect(bucket.take(600, now: 7) == nil)
        #expect(bucket.credit == 400)
        #expect(bucket.take(600, now: 8) == 50_007, "at the end of this interval")
        #expect(bucket.take(600, now: 50_006) == 50_007)
        #expect(bucket.credit == 400, "nothing is taken for a packet that waits")
        #expect(bucket.take(600, now: 50_007) == nil)
        #expect(bucket.credit == 800)
        #expect(bucket.take(65535, now: 50_008) == 50_007 + 65 * 50_000)
        #expect(bucket.take(65535, now: 50_007 + 65 * 50_000) == nil)
    }

    /// A slow interface can still send the largest packet, and saves no more than a burst.
    @Test(arguments: [(1, 131_072), (65_537, 131_072), (1_000_000, 1_065_535)] as [(UInt64, UInt64)])
    func bursts(_ bytes: UInt64, _ burst: UInt64) {
        var bucket = CreditBucket(rate: TransmitRate(bytes: bytes, microseconds: 1)!, now: 0)
        #expect(bucket.burst == burst)
        #expect(bucket.take(0, now: 1 << 60) == nil)
        #expect(bucket.credit == burst)
        #expect(bucket.take(65535, now: 1 << 60) == nil)
        #expect(bucket.credit == burst - 65535)
    }

    /// Over a second, a frontend that always wants more gets its rate within a packet and the first interval.
    @Test(arguments: [(62_500, 50_000), (1_250_000, 100_000), (1, 1), (3, 7)] as [(UInt64, UInt32)])
    func theRateIsKept(_ bytes: UInt64, _ microseconds: UInt32) {
        let rate = TransmitRate(bytes: bytes, microseconds: microseconds)!
        var bucket = CreditBucket(rate: rate, now: 0)
        var (now, sent) = (0 as UInt64, 0 as UInt64)
        while now < 1_000_000_000 {
            if let later = bucket.take(1500, now: now) {
                #expect(later > now)
                now = later
            } else {
                sent += 1500
            }
        }
        let due = bytes * (1_000_000 / UInt64(microseconds))
        // Nothing is lost while it asks in time.
        #expect(sent + 1500 >= due - due / 500 && sent <= due + bytes + 1500)
    }

    /// No clock and no rate makes it trap.
    @Test func extremes() {
        var large = CreditBucket(rate: TransmitRate(bytes: .max, microseconds: .max)!, now: .max - 1)
        #expect(large.take(.max, now: .max) == nil)
        #expect(large.take(65535, now: 0) == nil)
        var small = CreditBucket(rate: TransmitRate(bytes: 1, microseconds: .max)!, now: 0)
        #expect(small.take(.max, now: 5) == .max)
        #expect(small.take(65535, now: .max) == nil)
    }
}
