// The clock of a receive ring without buffers: when packets are dropped, when the link goes (XSA-392).

internal import Testing

@testable internal import NetBackend

@Suite struct StallClockTests {
    private let second: UInt64 = 1_000_000_000

    @Test func packetsAreDroppedAfterTenSecondsAndTheLinkAfterSixty() throws {
        var clock = StallClock(notifiesOfBuffers: true)
        #expect(clock.begin(now: 5) == .seconds(10))
        let first = try #require(clock.elapsed(now: 5 + 10 * second))
        #expect(first == .init(drains: true, dropsCarrier: false, next: .seconds(1)))
        let later = try #require(clock.elapsed(now: 5 + 60 * second))
        #expect(later == .init(drains: true, dropsCarrier: true, next: .seconds(1)))
        // Taken away once.
        #expect(clock.elapsed(now: 5 + 61 * second)?.dropsCarrier == false)
        #expect(clock.end())
        #expect(!clock.end())
    }

    @Test func buffersInTimeEndTheWait() {
        var clock = StallClock(notifiesOfBuffers: true)
        _ = clock.begin(now: 0)
        #expect(!clock.end())
        #expect(clock.elapsed(now: 10 * second) == nil)
    }

    @Test func aWaitThatBeganAnewIsNotTooOldByTheFormerTimer() {
        var clock = StallClock(notifiesOfBuffers: true)
        #expect(clock.begin(now: 0) != nil)
        _ = clock.end()
        // The timer of the first wait is still under way: no second one.
        #expect(clock.begin(now: 9 * second) == nil)
        #expect(clock.elapsed(now: 10 * second) == .init(drains: false, dropsCarrier: false, next: .seconds(9)))
        #expect(clock.elapsed(now: 19 * second)?.drains == true)
    }

    @Test func aFrontendThatNeverTellsIsLookedAtOftenAndKeepsItsLink() {
        var clock = StallClock(notifiesOfBuffers: false)
        #expect(clock.begin(now: 0) == .milliseconds(30))
        let action = clock.elapsed(now: 120 * second)
        #expect(action == .init(drains: true, dropsCarrier: false, next: .milliseconds(30)))
    }
}
