// Frontends that never stop, on threads of their own: requests as fast as they are answered, events all the time.

internal import Foundation
internal import FrontendDrivers
internal import Hypervisor
internal import SharedRing
internal import Synchronization
internal import TestSupport
internal import XenWire

/// Keeps a ring full and rings its bell without end, until `stop`.
final class Flood: Sendable {
    private struct State {
        var isStopping = false
        var isOver = false
    }
    private let state = Mutex(State())
    private let ring: RawRing

    /// - Parameter request: what is put at a ring index; nil: nothing at all, only events.
    init(_ ring: RawRing, _ request: (@Sendable (UInt32) -> WireWords)?) {
        self.ring = ring
        Thread.detachNewThread {
            while !self.state.withLock({ $0.isStopping }) {
                if let request { Flood.fill(ring, request) }
                ring.notify()
                sched_yield()
            }
            self.state.withLock { $0.isOver = true }
        }
    }

    private static func fill(_ ring: RawRing, _ request: (UInt32) -> WireWords) {
        let first = ring.requestProducer
        let end = ring.responseProducer &+ UInt32(ring.size)
        var index = first
        while index != end {
            ring.put(request(index), at: index)
            index &+= 1
        }
        ring.requestProducer = end
    }

    /// Requests that were answered.
    var answered: UInt32 { ring.responseProducer }

    func stop() async {
        state.withLock { $0.isStopping = true }
        _ = await eventually { self.state.withLock { $0.isOver } }
    }
}

extension RawCard {
    /// Floods a queue with packets of 60 bytes.
    func flood(queue index: Int = 0) -> Flood {
        let reference = pages.references[0]
        return Flood(queues[index].transmit) { number in
            RawNetworkQueue.request(reference, id: UInt16(truncatingIfNeeded: number), size: 60)
        }
    }

    /// Sends packets of 60 bytes through a queue as a frontend with manners does, with events only where they are asked
    /// for.
    /// - Returns: whether all were answered in time.
    func send(_ count: UInt32, queue index: Int) async -> Bool {
        let ring = queues[index].transmit
        let end = ring.requestProducer &+ count
        return await eventually(within: .seconds(60)) {
            let limit = ring.responseProducer &+ UInt32(ring.size)
            let next = end &- ring.requestProducer < limit &- ring.requestProducer ? end : limit
            for number in ring.requestProducer..<next {
                ring.put(
                    RawNetworkQueue.request(pages.references[0], id: UInt16(truncatingIfNeeded: number), size: 60),
                    at: number
                )
            }
            if next != ring.requestProducer { ring.push(to: next) }
            return ring.responseProducer == end
        }
    }
}

/// Bytes of this process that are in memory.
func residentBytes() -> Int {
    let text = (try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8)) ?? ""
    return (text.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0) * 4096
}
