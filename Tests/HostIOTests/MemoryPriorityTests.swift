// How ready the kernel is to end a process: only ever made readier.

import HostIO
import Testing

@Suite(.serialized) struct MemoryPriorityTests {
    @Test func aProcessMakesItselfALikelierVictimButNeverALessLikelyOne() throws {
        let before = try #require(MemoryPriority.score)
        try MemoryPriority.raise(to: before + 1)
        #expect(MemoryPriority.score == before + 1)
        try MemoryPriority.raise(to: before)
        #expect(MemoryPriority.score == before + 1)
    }
}
