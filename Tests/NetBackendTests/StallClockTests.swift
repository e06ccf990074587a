// The clock of a receive ring without buffers: when packets are dropped, when the link goes (XSA-392).

internal import Testing

@testable internal import NetBackend

@Suite struct StallClockTests {
    private let second: UInt64 = 1_000_000_000

    @Test func packetsAreDroppedAfterTenSecondsAndTheLinkAfterSixty() {
        var clock = StallClock(notifiesOfBuffers: true)
        let wait = clock.begin(now: 5)
        #expect(wait == .seconds(10))
        let first = clock.elapsed(now: 5 + 10 * second)
        #expect(first == .init(drains: true, dropsCarrier: false, next: .seconds(1)))
        let later = clock.elapsed(now: 5 + 60 * second)
        #expect(later == .init(drains: true, dropsCarrier: true, next: .seconds(1)))
        // Taken away once.
        let once = clock.elapsed(now: 5 + 61 * second)
        #expect(once?.dropsCarrier == false)
        let (wasDown, isDown) = (clock.end(), clock.end())
        #expect(wasDown && !isDown)
    }

    @Test func buffersInTimeEndTheWait() {
        var clock = StallClock(notifiesOfBuffers: true)
        _ = clock.begin(now: 0)
        let wasDown = clock.end()
        let action = clock.elapsed(now: 10 * second)
        #expect(!wasDown && action == nil)
    }

    @Test func aWaitThatBeganAnewIsNotTooOldByTheFormerTimer() {
        var clock = StallClock(notifiesOfBuffers: true)
        _ = clock.begin(now: 0)
        _ = clock.end()
        // The timer of the first wait is still under way: no second one.
        let again = clock.begin(now: 9 * second)
        #expect(again == nil)
        let early = clock.elapsed(now: 10 * second)
        #expect(early == .init(drains: false, dropsCarrier: false, next: .seconds(9)))
        let late = clock.elapsed(now: 19 * second)
        #expect(late?.drains == true)
    }

    @Test func aFrontendThatNeverTellsIsLookedAtOftenAndKeepsItsLink() {
        var clock = StallClock(notifiesOfBuffers: false)
        let wait = clock.begin(now: 0)
        #expect(wait == .milliseconds(30))
        let action = clock.elapsed(now: 120 * second)
        #expect(action == .init(drains: true, dropsCarrier: false, next: .milliseconds(30)))
    }
}
