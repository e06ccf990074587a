// A flow of numbered packets from one guest to the other that outlives losses, as a TCP connection does.

import FrontendDrivers
import HostIO
import SharedRing
import Synchronization
import XenWire

/// Frames in a window; the receiver acknowledges the number that it waits for, and after a while without an
/// acknowledgement the sender goes back to it (go-back-N). Every frame that arrives is checked, byte by byte.
final class DemoFlow: Sendable {
    /// Without an acknowledgement for one to two of these, what is under way is lost.
    private static let patience = Duration.milliseconds(20)

    struct Shape: Sendable {
        let byteCount: Int
        /// Frames under way at most.
        let window: Int
    }

    /// What came of it.
    struct Account: Sendable {
        /// Frames that were delivered, each once and in order.
        var delivered: UInt64 = 0
        /// Frames that were sent more than once.
        var again: UInt64 = 0
        /// Frames that arrived with wrong bytes.
        var wrong = 0
    }

    private struct State: Sendable {
        /// The sender's: frames below are delivered.
        var acknowledged: UInt64 = 0
        /// The sender's next frame.
        var next: UInt64 = 0
        /// Frames that were sent at least once.
        var reached: UInt64 = 0
        /// When each frame of the window was first sent.
        var begun: [ContinuousClock.Instant]
        var waiter: CheckedContinuation<Void, Never>?
        /// The receiver's next frame.
        var expected: UInt64 = 0
        var account = Account()
    }

    private let sender: DemoNetworkStage.Guest
    private let receiver: DemoNetworkStage.Guest
    private let shape: Shape
    private let meter: DemoMeter
    private let data: NetworkStream
    private let answers: NetworkStream
    private let state: Mutex<State>
    /// Something arrived that is to be acknowledged.
    private let arrivals: (stream: AsyncStream<Void>, raise: AsyncStream<Void>.Continuation)

    init(
        from sender: DemoNetworkStage.Guest,
        to receiver: DemoNetworkStage.Guest,
        _ shape: Shape,
        flow: UInt8,
        _ meter: DemoMeter
    ) {
        self.sender = sender
        self.receiver = receiver
        self.shape = shape
        self.meter = meter
        data = NetworkStream(from: sender.address, to: receiver.address, flow: flow)
        answers = NetworkStream(from: receiver.address, to: sender.address, flow: flow)
        state = Mutex(State(begun: Array(repeating: .now, count: shape.window)))
        let (stream, raise) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
        arrivals = (stream, raise)
    }

    /// Sends until `end`, then waits until everything is delivered.
    func run(until end: ContinuousClock.Instant) async throws -> Account {
        await receiver.frontend.setReceiver { [self] in arrived($0.slot) }
        await sender.frontend.setReceiver { [self] in answered($0.slot) }
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask(executorPreference: receiver.loop) { try await self.acknowledge() }
            group.addTask { await self.keepGoing() }
            group.addTask(executorPreference: sender.loop) {
                // The others would wait for ever.
                defer { self.arrivals.raise.finish() }
                try await self.send(until: end)
            }
            _ = try await group.next()
            group.cancelAll()
            try await group.waitForAll()
        }
        await receiver.frontend.setReceiver(nil)
        await sender.frontend.setReceiver(nil)
        return state.withLock { $0.account }
    }

    // MARK: the sender

    private func send(until end: ContinuousClock.Instant) async throws {
        while true {
            let (first, count) = state.withLock { state in
                (state.next, state.acknowledged + UInt64(shape.window) - state.next)
            }
            let isOver = ContinuousClock.now >= end
            let wanted = isOver ? state.withLock { $0.reached - first } : count
            if wanted > 0 {
                try await burst(first, Int(wanted))
            } else if isOver, state.withLock({ $0.acknowledged == $0.reached }) {
                return
            } else {
                await progress(since: first)
            }
        }
    }

    private func burst(_ first: UInt64, _ count: Int) async throws {
        let sent = try await sender.frontend.sendBurst(count, byteCount: shape.byteCount) { [self] index, slot in
            let number = first + UInt64(index)
            // Before it goes: its acknowledgement may be quicker than our return from here.
            state.withLock { state in
                if number >= state.reached {
                    state.begun[Int(number % UInt64(shape.window))] = .now
                    state.reached = number + 1
                }
                if state.next == number { state.next += 1 }
            }
            data.write(number, into: slot)
        }
        if sent == 0 { try await sender.frontend.waitForRoom(byteCount: shape.byteCount) }
    }

    /// Waits for an acknowledgement, or for the order to go back.
    private func progress(since next: UInt64) async {
        await withCheckedContinuation { continuation in
            let isLate = state.withLock { state in
                let isLate = state.next != next || state.acknowledged == next
                if !isLate { state.waiter = continuation }
                return isLate
            }
            if isLate { continuation.resume() }
        }
    }

    private func answered(_ frame: Slot) {
        guard let (number, _, isRight) = answers.read(frame) else { return }
        let now = ContinuousClock.now
        let (waiter, begun) = state.withLock { state in
            var begun: [ContinuousClock.Instant] = []
            if !isRight || number > state.reached {
                state.account.wrong += 1
            } else {
                for frame in state.acknowledged..<max(number, state.acknowledged) {
                    begun.append(state.begun[Int(frame % UInt64(shape.window))])
                }
                state.acknowledged = max(state.acknowledged, number)
                state.next = max(state.next, state.acknowledged)
            }
            defer { state.waiter = nil }
            return (state.waiter, begun)
        }
        for time in begun where time <= now { meter.completed(shape.byteCount, since: time) }
        waiter?.resume()
    }

    /// Goes back whenever nothing has been acknowledged for a while.
    private func keepGoing() async {
        var last = UInt64.max
        while (try? await Task.sleep(for: Self.patience)) != nil {
            let waiter = state.withLock { state -> CheckedContinuation<Void, Never>? in
                defer { last = state.acknowledged }
                guard state.acknowledged == last, state.next > last else { return nil }
                state.account.again += state.next - last
                state.next = last
                defer { state.waiter = nil }
                return state.waiter
            }
            waiter?.resume()
        }
    }

    // MARK: the receiver

    private func arrived(_ frame: Slot) {
        guard let (number, _, isRight) = data.read(frame) else { return }
        state.withLock { state in
            if !isRight {
                state.account.wrong += 1
            } else if number == state.expected {
                state.expected += 1
                state.account.delivered += 1
            }
        }
        arrivals.raise.yield()
    }

    private func acknowledge() async throws {
        for await _ in arrivals.stream {
            let number = state.withLock { $0.expected }
            let sent = try await receiver.frontend.sendBurst(1, byteCount: NetworkStream.minByteCount) { [answers] in
                answers.write(number, into: $1)
            }
            // No room: its worker is gone for now. The sender will ask again.
            if sent == 0 { try await receiver.frontend.waitForRoom(byteCount: NetworkStream.minByteCount) }
        }
    }
}
