// Requests counted and timed, and the pauses between them.

import Synchronization

/// Collects completions from several tasks.
final class DemoMeter: Sendable {
    private struct State: Sendable {
        var latencies: [UInt32] = []
        /// Microseconds since the start, in order.
        var completions: [Int64] = []
        var bytes = 0
        var wrong = 0
    }

    let name: String
    private let start = ContinuousClock.now
    private let state = Mutex(State())

    init(_ name: String) { self.name = name }

    /// - Parameter begun: when the request was made.
    func completed(_ bytes: Int, since begun: ContinuousClock.Instant, wrong: Int = 0) {
        let now = ContinuousClock.now
        state.withLock { state in
            state.latencies.append(UInt32(clamping: (now - begun).microseconds))
            state.completions.append((now - start).microseconds)
            state.bytes += bytes
            state.wrong += wrong
        }
    }

    var count: Int { state.withLock { $0.completions.count } }

    /// The longest time without a completion between two instants.
    func pause(from begin: ContinuousClock.Instant, to end: ContinuousClock.Instant) -> Duration {
        let (from, to) = ((begin - start).microseconds, (end - start).microseconds)
        return state.withLock { state in
            var (last, longest) = (from, Int64(0))
            for completion in state.completions where completion > from && completion <= to {
                longest = max(longest, completion - last)
                last = completion
            }
            return .microseconds(max(longest, to - last))
        }
    }

    func figures() -> DemoOutcome.Phase {
        let seconds = max(1, (ContinuousClock.now - start).microseconds)
        return state.withLock { state in
            let sorted = state.latencies.sorted()
            func percentile(_ share: Double) -> UInt32 {
                sorted.isEmpty ? 0 : sorted[min(sorted.count - 1, Int(Double(sorted.count) * share))]
            }
            return DemoOutcome.Phase(
                name: name,
                requests: sorted.count,
                megabytesPerSecond: Double(state.bytes) / Double(seconds),
                medianMicroseconds: percentile(0.5),
                p99Microseconds: percentile(0.99),
                longestMicroseconds: sorted.last ?? 0,
                wrongBlocks: state.wrong
            )
        }
    }
}
