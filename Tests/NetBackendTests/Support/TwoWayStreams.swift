// Numbered frames through a card both ways and on all its queues, and what became of them.

internal import FrontendDrivers
internal import SharedRing
internal import Synchronization
internal import TestSupport
internal import XenWire

/// Flows 0 … from the guest, which sends as fast as it can; flows 16 … to it, as many as are given.
final class TwoWayStreams: Sendable {
    private struct State {
        var toHost: [NetworkStream.Receiver]
        var toGuest: [NetworkStream.Receiver]
        /// Frames given to the guest.
        var given: [UInt64]
    }
    private let scene: NetScene
    private let wire: WireDevice
    private let queues: Int
    private let state: Mutex<State>
    private let senders: [Task<UInt64, any Error>]

    init(_ scene: NetScene, queues: Int) async throws {
        self.scene = scene
        self.queues = queues
        wire = try scene.wire
        let receivers = { (start: Int) in (0..<queues).map { NetworkStream.Receiver(Frames.stream(UInt8(start + $0))) }
        }
        state = Mutex(
            State(toHost: receivers(0), toGuest: receivers(16), given: Array(repeating: 0, count: queues))
        )
        senders = (0..<queues).map { queue in
            Task {
                var number: UInt64 = 0
                while !Task.isCancelled {
                    let bytes = Frames.udp(62 + Int(number * 97 % 6000), number: number, flow: UInt8(queue))
                    try await scene.frontend.send(bytes, queue: queue)
                    number += 1
                }
                return number
            }
        }
        await scene.frontend.setReceiver { [weak self] packet in
            self?.state.withLock { state in
                for index in state.toGuest.indices { _ = state.toGuest[index].take(packet.slot) }
            }
        }
    }

    /// What came, in this order: flows from the guest, flows to it.
    var received: (toHost: [NetworkStream.Receiver], toGuest: [NetworkStream.Receiver]) {
        state.withLock { ($0.toHost, $0.toGuest) }
    }
    var given: [UInt64] { state.withLock { $0.given } }

    /// Gives each queue frames for the guest, as many as it takes.
    func give(_ count: Int) {
        for queue in 0..<queues {
            for _ in 0..<count {
                let number = given[queue]
                let bytes = Frames.udp(62 + Int(number * 131 % 9000), number: number, flow: UInt8(16 + queue))
                if wire.send(WireFrame(bytes: bytes), queue: queue) { state.withLock { $0.given[queue] += 1 } }
            }
        }
    }

    /// Takes what came out of the interface.
    func takeAll() {
        for queue in 0..<queues {
            while let frame = wire.receive(queue: queue) {
                _ = Frames.edit(frame.bytes) { slot in state.withLock { _ = $0.toHost[queue].take(slot) } }
            }
        }
    }

    /// Whether as many more frames of the guest come out.
    func comeOut(_ count: UInt64) async -> Bool {
        let before = received.toHost.map(\.received).reduce(0, +)
        return await eventually {
            takeAll()
            return received.toHost.map(\.received).reduce(0, +) >= before + count
        }
    }

    /// Ends the guest's flows.
    /// - Returns: how many frames each had.
    func stop() async throws -> [UInt64] {
        for sender in senders { sender.cancel() }
        var numbers: [UInt64] = []
        for sender in senders { numbers.append(try await sender.value) }
        return numbers
    }
}
