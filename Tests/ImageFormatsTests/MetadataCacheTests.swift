// The cache of metadata pages: look-ups, replacement, and pages that must stay.

import Testing

@testable import ImageFormats

@Suite struct MetadataCacheTests {
    /// Enters a page whose first eight bytes are its own number.
    private func fill(_ cache: MetadataCache, _ number: UInt64) throws {
        let place = try #require(cache.admit(number))
        _ = cache.store(number, width: 8, at: 0, in: place)
        cache.places[place].written = cache.places[place].version
        cache.places[place].isValid = true
    }

    @Test func whatWasNotReadIsAMiss() throws {
        let cache = try MetadataCache(capacity: 0)
        #expect(cache.u64(at: 8192) == nil)
        let place = try #require(cache.admit(2))
        #expect(cache.u64(at: 8192) == nil, "it has a place but was not read yet")
        cache.places[place].isValid = true
        #expect(cache.u64(at: 8192) == 0)
    }

    /// Far more pages than places, by numbers that collide: every hit is the right page.
    @Test func replacementKeepsTheTableRight() throws {
        let cache = try MetadataCache(capacity: 128)
        var state: UInt64 = 1
        for _ in 0..<20_000 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            let number = (state >> 40) % 400
            if let value = cache.u64(at: number * 4096) {
                #expect(value == number)
            } else {
                try fill(cache, number)
            }
        }
        #expect(cache.used == 128)
    }

    @Test func pinnedAndChangedPagesStay() throws {
        let cache = try MetadataCache(capacity: 128)
        for number in 0..<128 { try fill(cache, UInt64(number)) }
        let pinned = try #require(cache.find(7))
        let dirty = try #require(cache.find(9))
        cache.places[pinned].pins = 1
        _ = cache.store(99, width: 4, at: 100, in: dirty)
        for number in 200..<1000 { try fill(cache, UInt64(number)) }
        #expect(cache.u64(at: 7 * 4096) == 7)
        #expect(cache.u32(at: 9 * 4096 + 100) == 99)
        for place in 0..<128 { cache.places[place].pins = 1 }
        #expect(cache.admit(5000) == nil, "there is no room")
    }

    @Test func valuesAreBigEndian() throws {
        let cache = try MetadataCache(capacity: 0)
        let place = try #require(cache.admit(0))
        cache.places[place].isValid = true
        _ = cache.store(0x0102_0304_0506_0708, width: 8, at: 16, in: place)
        #expect(cache.u8(at: 16) == 1)
        #expect(cache.u16(at: 18) == 0x0304)
        #expect(cache.u32(at: 20) == 0x0506_0708)
        #expect(cache.store(0xABCD, width: 2, at: 18, in: place) == 0x0304)
        #expect(cache.u64(at: 16) == 0x0102_ABCD_0506_0708)
        #expect(cache.places[place].dirty == 1)
        _ = cache.store(1, width: 1, at: 4095, in: place)
        #expect(cache.places[place].dirty == 0x81)
    }
}
