// When a queue looks on after an answer, and for how long.

internal import BackendCore
internal import Testing

@Suite struct PollWindowTests {
    @Test func onlyABusyFrontendIsLookedFor() {
        var poll = PollWindow()
        #expect(poll.nanoseconds == 0)
        poll.woke(after: 1_000_000_000)
        poll.answered(after: 3_000)
        #expect(poll.nanoseconds == 0)
        poll.woke(after: 40_000)
        #expect(poll.nanoseconds == 50_000)
        poll.found()
        #expect(poll.nanoseconds == 50_000)
        // Not after a pause.
        poll.missed()
        poll.woke(after: 10_000_000)
        #expect(poll.nanoseconds == 0)
    }

    /// A frontend cannot make us work for much longer than its requests take.
    @Test func theWindowFollowsTheCostOfRequests() {
        var poll = PollWindow()
        for (cost, window) in [(1_000, 50_000), (100_000, 400_000), (3_000_000_000, 2_000_000), (2_000, 50_000)]
            as [(UInt64, UInt64)]
        {
            for _ in 0..<200 { poll.answered(after: cost) }
            poll.woke(after: 1_000)
            // The mean is an integer that comes near.
            #expect(poll.nanoseconds <= window && poll.nanoseconds > window - window / 100)
        }
    }

    @Test func windowsAreCountedInLooks() {
        var poll = PollWindow()
        for time: UInt64 in [900_000, 102_400, 1_000_000_000] {
            #expect(poll.looks(in: 50_000) == nil)
            poll.tried(time)
        }
        poll.tried(102_401)
        #expect(poll.looks(in: 50_000) == 500 && poll.looks(in: 2_000_000) == 20_000 && poll.looks(in: 1) == 1)
        poll.tried(0)
        #expect(poll.looks(in: 2_000_000) == 2_000_000 * PollWindow.trialLooks)
    }

    @Test func whatFindsNothingRests() {
        var poll = PollWindow()
        poll.answered(after: 1_000)
        for round in 0..<4 {
            poll.woke(after: 10_000)
            #expect(poll.nanoseconds > 0, "round \(round)")
            poll.missed()
        }
        for round in 0..<63 {
            poll.woke(after: 10_000)
            #expect(poll.nanoseconds == 0, "round \(round)")
        }
        poll.woke(after: 10_000)
        #expect(poll.nanoseconds > 0)
        // One that is found in between begins the count anew.
        for _ in 0..<20 {
            poll.missed()
            poll.woke(after: 10_000)
            poll.found()
            #expect(poll.nanoseconds > 0)
        }
    }
}
