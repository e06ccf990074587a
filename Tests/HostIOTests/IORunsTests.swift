// The list of runs: joining, capacity, and going on after a short transfer.

import HostIO
import Testing

@Suite struct IORunsTests {
    private func list(_ runs: borrowing IORuns) -> [IORuns.Run] { (0..<runs.count).map { runs[$0] } }

    @Test func adjacentRunsAreJoined() {
        var runs = IORuns()
        runs.append(offset: 4096, byteCount: 512)
        runs.append(offset: 4608, byteCount: 512)
        runs.append(offset: 0, byteCount: 4096)
        runs.append(offset: 0, byteCount: 4096)
        let kept = list(runs)
        #expect(kept.map(\.offset) == [4096, 0, 0])
        #expect(kept.map(\.byteCount) == [1024, 4096, 4096])
        var total = runs.byteCount
        #expect(total == 9216)
        runs.removeAll()
        total = runs.byteCount + runs.count
        #expect(total == 0)
    }

    @Test func fullListTakesNoMore() {
        var runs = IORuns()
        for index in 0..<IORuns.capacity {
            let isTaken = runs.append(offset: index * 8192, byteCount: 4096)
            #expect(isTaken)
        }
        let isTaken = runs.append(offset: 1 << 30, byteCount: 4096)
        #expect(!isTaken)
        // What goes on where the last one ends still fits.
        let isJoined = runs.append(offset: (IORuns.capacity - 1) * 8192 + 4096, byteCount: 1)
        #expect(isJoined)
        let total = runs.byteCount
        #expect(total == IORuns.capacity * 4096 + 1)
    }

    @Test(arguments: [0, 1, 511, 512, 513, 1535, 1536])
    func removingTheFirstBytes(bytes: Int) {
        var runs = IORuns(offset: 8192, byteCount: 512)
        runs.append(offset: 0, byteCount: 512)
        runs.append(offset: 4096, byteCount: 512)
        let all = list(runs).flatMap { $0.offset..<$0.offset + $0.byteCount }
        runs.removeFirst(bytes: bytes)
        let left = list(runs)
        #expect(left.flatMap { $0.offset..<$0.offset + $0.byteCount } == Array(all.dropFirst(bytes)))
        #expect(left.allSatisfy { $0.byteCount > 0 })
        let total = runs.byteCount
        #expect(total == 1536 - bytes)
    }
}
